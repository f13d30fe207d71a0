"""The ranked lists as HTML: frames, pictures, and what each part contributed to a match."""

from collections.abc import Mapping, Sequence

from dinogrl_jax.data.sampling import uniform
from dinogrl_jax.retrieval.report.charts import bar_chart
from dinogrl_jax.retrieval.report.page import Html, element, figure, section
from dinogrl_jax.retrieval.report.pictures import array_image, frame_image
from dinogrl_jax.retrieval.report.ranked_lists import RankedList, part_labels
from dinogrl_jax.retrieval.report.sections import direction_words
from dinogrl_jax.retrieval.report.subjects import Subject

QUERY_FRAMES = 3


def ranked_lists_section(found: Mapping[str, Sequence[RankedList]], subject: Subject) -> Html:
    """A list for each shown query; correct entries are green, others red."""
    pictures = _pictures_by_row([one for shown in found.values() for one in shown], subject)
    elements = []
    for name, shown in found.items():
        elements.append(element("h3", direction_words(name)))
        for one in shown:
            elements += [element("hr"), *_list_elements(one, subject, pictures)]
    note = (
        "Queries of the highest, middle and lowest average precision, and their nearest tracklets. "
        "Green and ✓: the same identity; red and ✗: another. Distances stand below."
    )
    return section("Ranked lists", element("p", note, class_="soft"), *elements)


def _list_elements(
    one: RankedList, subject: Subject, pictures: Mapping[str, Mapping[int, Html]]
) -> list[Html]:
    head = f"{one.kind}: AP {100 * one.ap:.1f} %, first match at rank {one.rank}"
    entries = [_query_card(one.query, subject)]
    for row, distance, right in zip(one.rows.tolist(), one.distance, one.correct, strict=True):
        entries.append(_entry_card(row, f"{distance:.4g}", bool(right), subject))
    details = []
    if len(one.parts) > 1:
        labels = part_labels(subject.part_names, len(one.parts))
        chart = bar_chart(one.parts, labels)
        note = (
            f"What each of {len(labels)} parts contributes to the nearest match: how much nearer "
            "it makes it than other people (up, green) or farther (down, red)."
        )
        details.append(figure(chart, note))
    figures = [
        figure(by_row[row], f"{what}: {caption}")
        for caption, by_row in pictures.items()
        for what, row in (("query", one.query), ("nearest match", one.match))
    ]
    if figures:
        details.append(element("div", *figures, class_="seen"))
    return [
        element("p", head),
        element("div", *entries, class_="list"),
        element("div", *details, class_="detail"),
    ]


def _query_card(row: int, subject: Subject) -> Html:
    frames = subject.frames(row)
    chosen = (
        [frames[i] for i in sorted(set(uniform(len(frames), QUERY_FRAMES).tolist()))]
        if frames
        else []
    )
    pictures = [picture for frame in chosen if (picture := frame_image(frame))]
    return _card("entry query", pictures, "query", row, subject)


def _entry_card(row: int, distance: str, right: bool, subject: Subject) -> Html:
    frames = subject.frames(row)
    picture = frame_image(frames[len(frames) // 2]) if frames else None
    mark = f"{'✓' if right else '✗'} {distance}"
    return _card(
        f"entry {'good' if right else 'bad'}", [picture] if picture else [], mark, row, subject
    )


def _card(class_: str, pictures: Sequence[Html], mark: str, row: int, subject: Subject) -> Html:
    who = [element("b", mark), element("div", f"id {subject.identity[row] or 'unknown'}")]
    if subject.camera[row]:
        who.append(element("div", f"camera {subject.camera[row]}"))
    shown = pictures or [element("span", "no frame", class_="noframe")]
    title = subject.path[row] or f"tracklet {row}"
    return element("div", element("div", *shown, class_="frame"), *who, class_=class_, title=title)


def _pictures_by_row(shown: Sequence[RankedList], subject: Subject) -> dict[str, dict[int, Html]]:
    """By caption, the pictures of all shown queries and their nearest matches, made at once."""
    rows = sorted({row for one in shown for row in (one.query, one.match)})
    return {
        caption: {row: array_image(p) for row, p in zip(rows, pictures(rows), strict=True)}
        for caption, pictures in subject.pictures.items()
    }

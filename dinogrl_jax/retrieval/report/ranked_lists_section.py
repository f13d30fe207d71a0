"""The ranked lists as HTML: frames, pictures, and what each part contributed to a match."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dinogrl_jax.data.sampling import uniform
from dinogrl_jax.retrieval.report.charts import bar_chart
from dinogrl_jax.retrieval.report.frames import frame_element, jpeg, jpeg_element
from dinogrl_jax.retrieval.report.page import Html, element, figure, section
from dinogrl_jax.retrieval.report.ranked_lists import RankedList, part_labels
from dinogrl_jax.retrieval.report.sections import direction_words
from dinogrl_jax.retrieval.report.subjects import Shown, Subject

QUERY_FRAMES = 3


def ranked_lists_section(found: Mapping[str, Sequence[RankedList]], subject: Subject) -> Html:
    """A list for each shown query; correct entries are green, others red."""
    everyone = [one for shown in found.values() for one in shown]
    pictures = [_images_by_row(everyone, shown) for shown in subject.pictures]
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
    one: RankedList, subject: Subject, pictures: Sequence[Mapping[int, Html]]
) -> list[Html]:
    head = f"{one.kind}: AP {100 * one.ap:.1f} %, first match at rank {one.rank}"
    frames = subject.frames(one.query)
    chosen = [frames[i] for i in np.unique(uniform(len(frames), QUERY_FRAMES)) if frames]
    entries = [_card("entry query", chosen, "query", one.query, subject)]
    for row, distance, right in zip(one.rows.tolist(), one.distance, one.correct, strict=True):
        frames = subject.frames(row)
        class_, mark = ("entry good", "✓") if right else ("entry bad", "✗")
        middle = frames[len(frames) // 2 :][:1]
        entries.append(_card(class_, middle, f"{mark} {distance:.4g}", row, subject))
    details = []
    if len(one.parts) > 1:
        labels = part_labels(subject.part_names, len(one.parts))
        note = (
            f"What each of {len(labels)} parts contributes to the nearest match: how much nearer "
            "it makes it than other people (up, green) or farther (down, red)."
        )
        details.append(figure(bar_chart(one.parts, labels), note))
    figures = [
        figure(_labelled(images[row], shown), f"{what}: {shown.caption}")
        for shown, images in zip(subject.pictures, pictures, strict=True)
        for what, row in (("query", one.query), ("nearest match", one.match))
    ]
    if figures:
        details.append(element("div", *figures, class_="seen"))
    return [
        element("p", head),
        element("div", *entries, class_="list"),
        element("div", *details, class_="detail"),
    ]


def _card(class_: str, frames: Sequence[str], mark: str, row: int, subject: Subject) -> Html:
    who = [element("b", mark), element("div", f"id {subject.identity[row] or 'unknown'}")]
    if subject.camera[row]:
        who.append(element("div", f"camera {subject.camera[row]}"))
    pictures = [picture for frame in frames if (picture := frame_element(frame))]
    shown = pictures or [element("span", "no frame", class_="noframe")]
    title = subject.path[row] or f"tracklet {row}"
    return element("div", element("div", *shown, class_="frame"), *who, class_=class_, title=title)


def _images_by_row(lists: Sequence[RankedList], shown: Shown) -> dict[int, Html]:
    """The pictures of all shown queries and their nearest matches, made at once."""
    rows = sorted({row for one in lists for row in (one.query, one.match)})
    pictures = map(Image.fromarray, shown.make(rows))
    return {row: jpeg_element(jpeg(p)) for row, p in zip(rows, pictures, strict=True)}


def _labelled(image: Html, shown: Shown) -> Html:
    """A picture with the labels of its columns above it, and those of its rows on its left."""
    columns, rows = (
        element("div", *(element("span", label) for label in labels), class_=class_)
        for labels, class_ in ((shown.columns, "columns"), (shown.rows, "rows"))
    )
    return element("div", columns, rows, image, class_="labelled")

"""What a search found, as a page that opens in a browser and as lines of text."""

from collections.abc import Sequence
from datetime import UTC, datetime

from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.report.frames import jpeg_element
from dinogrl_jax.retrieval.report.page import Html, element, page, section, table
from dinogrl_jax.retrieval.store.gallery import Found
from dinogrl_jax.retrieval.store.source import Source

HEADS = ("rank", "distance", "false accepts", "identity", "camera", "modality", "time", "tracklet")
SHARE = (
    "False accepts: at most this share of pairs of different people was as near in the evaluation "
    "of the model. Of N tracklets of others, so many times N are expected as near."
)
NO_SHARE = (
    "Nobody has evaluated this checkpoint of the model: dinogrl_jax evaluate says what a distance "
    "stands for."
)


def result_rows(found: Sequence[Found], source: Source) -> list[list[str]]:
    """The cells of each tracklet, by HEADS."""
    return [
        [
            str(rank),
            f"{one.distance:.4g}",
            share_words(one.false_accepts, source),
            one.identity or "unknown",
            one.camera or "unknown",
            one.modality,
            time_words(one.time),
            one.name or f"tracklet {one.place}",
        ]
        for rank, one in enumerate(found, 1)
    ]


def share_words(share: float | None, source: Source) -> str:
    """The share of false accepts, in percent."""
    if share is None:
        return "unknown"
    if share == 1 and source.thresholds:
        return f"> {100 * max(x.false_accepts for x in source.thresholds):g} %"
    return f"≤ {100 * share:g} %"


def time_words(seconds: float | None) -> str:
    """A time in UTC, to the second."""
    if seconds is None:
        return "unknown"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a year that has no date
        return f"{seconds:.0f} s"


def result_text(found: Sequence[Found], source: Source) -> str:
    """A table for a terminal."""
    rows = [list(HEADS), *([printable(x) for x in row] for row in result_rows(found, source))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def result_html(
    found: Sequence[Found], source: Source, query: str, pictures: Sequence[bytes], how: str
) -> str:
    """The page: the query, and what was found, with pictures and as a table.

    query: its name; pictures: JPEGs of its frames. how: what was searched, in words.
    """
    own = element("div", *map(jpeg_element, pictures), class_="frame")
    mark = element("b", "query")
    cards = [element("div", own, mark, class_="entry query", title=query)] if pictures else []
    cards += [_card(rank, one, source) for rank, one in enumerate(found, 1)]
    note = SHARE if source.thresholds else NO_SHARE
    return page(
        "Search",
        element("p", f"{query}: {how}", class_="soft"),
        section("Nearest tracklets", element("div", *cards, class_="list")),
        section(
            "Distances",
            element("p", note, class_="soft"),
            table(list(HEADS), result_rows(found, source), class_="words"),
        ),
    )


def _card(rank: int, one: Found, source: Source) -> Html:
    shown = (
        jpeg_element(one.thumbnail)
        if one.thumbnail
        else element("span", "no frame", class_="noframe")
    )
    lines = [
        element("b", f"{rank}: {one.distance:.4g}"),
        element("div", share_words(one.false_accepts, source)),
        element("div", f"id {one.identity or 'unknown'}"),
        element("div", f"camera {one.camera or 'unknown'}, {one.modality}"),
    ]
    if one.time is not None:
        lines.append(element("div", time_words(one.time)))
    frame = element("div", shown, class_="frame")
    return element("div", frame, *lines, class_="entry", title=one.name or f"tracklet {one.place}")

"""What is in a gallery, for people who search it."""

from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.retrieval.store import database
from dinogrl_jax.retrieval.store.database import Entry

MOST_CAMERAS = 1000


class Overview(NamedTuple):
    tracklets: int
    cameras: tuple[str, ...]  # MOST_CAMERAS at most; "" is the unknown one
    modalities: tuple[str, ...]
    first: float | None  # times, in seconds since 1970 (UTC); None: none is known
    last: float | None


def gallery_overview(folder: Path) -> Overview:
    """What is in a gallery; InputError where it cannot be read."""
    if not (folder / database.FILE).exists():
        return Overview(0, (), (), None, None)
    with database.connection(folder) as base:
        if database.stored(base) is None:
            return Overview(0, (), (), None, None)
        (count,) = base.execute("SELECT coalesce(max(place) + 1, 0) FROM tracklets").fetchone()
        cameras = _distinct(base, "camera")
        modalities = _distinct(base, "modality")
        first, last = base.execute("SELECT min(time), max(time) FROM tracklets").fetchone()
    return Overview(count, tuple(sorted(cameras, key=_in_order)), modalities, first, last)


def entry_at(folder: Path, place: int) -> Entry | None:
    """What a gallery keeps of a tracklet; None where there is none of that place."""
    if not (folder / database.FILE).exists():
        return None
    with database.connection(folder) as base:
        at = database.stored(base)
        if at is None or not 0 <= place < at.count:
            return None
        return database.entries_at(base, [place])[0]


def _distinct(base, column: str) -> tuple[str, ...]:
    query = f"SELECT DISTINCT {column} FROM tracklets LIMIT {MOST_CAMERAS}"
    return tuple(value for (value,) in base.execute(query))


def _in_order(camera: str) -> tuple:
    """Numbers by size, before names."""
    return (0, int(camera), "") if camera.isdecimal() else (1, 0, camera)

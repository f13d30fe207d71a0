"""What people say of a search's answers: this tracklet is the query's person, or another one.

They lie in the gallery's database, with the frames of the query, which is in no gallery. A query is
known by a digest of its pictures, so that it keeps its labels when somebody asks again.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.store import database

SAME, OTHER = "same", "other"
ANSWERS = (SAME, OTHER)


class Label(NamedTuple):
    """What somebody has said."""

    query: str  # its digest
    place: int  # of the tracklet
    label: str  # an entry of ANSWERS
    time: float  # when it was said, in seconds since 1970 (UTC)


def write_label(
    folder: Path,
    query: str,
    modality: str,
    pictures: Sequence[bytes],
    place: int,
    label: str | None,
) -> None:
    """Keep what somebody says of a query and a tracklet, in the place of what was said before.

    query: its digest, with the modality and pictures (PNG) of the clip, which are kept once. label:
    of ANSWERS; None takes back what was said.

    Raises InputError where there is no such tracklet, and where the database cannot be written.
    """
    if not (folder / database.FILE).exists():
        raise InputError(f"{folder} holds no tracklets yet: add some first")
    with database.connection(folder, write=True) as base:
        if not base.execute("SELECT 1 FROM tracklets WHERE place = ?", (place,)).fetchone():
            raise InputError(f"there is no tracklet {place}")
        if not _has_tables(base):
            for line in database.LABELS:
                base.execute(line)
        base.execute("DELETE FROM labels WHERE query = ? AND place = ?", (query, place))
        if label is None:
            return
        if not base.execute("SELECT 1 FROM queries WHERE query = ?", (query,)).fetchone():
            base.execute("INSERT INTO queries VALUES (?, ?)", (query, modality))
            rows = ((query, number, picture) for number, picture in enumerate(pictures))
            base.executemany("INSERT INTO query_frames VALUES (?, ?, ?)", rows)
        row = (query, place, label, time.time())
        base.execute("INSERT INTO labels VALUES (?, ?, ?, ?)", row)


def stored_labels(folder: Path, query: str | None = None) -> list[Label]:
    """What has been said, of all queries or of one, in the order in which it was said."""
    if not (folder / database.FILE).exists():
        return []
    with database.connection(folder) as base:
        if not _has_tables(base):
            return []
        rows = base.execute(
            "SELECT query, place, label, time FROM labels WHERE ?1 IS NULL OR query = ?1 "
            "ORDER BY time, place",
            (query,),
        ).fetchall()
    for row in rows:
        if list(map(type, row)) != [str, int, str, float] or row[2] not in ANSWERS:
            raise InputError(f"{folder}: a label is damaged: restore its {database.FILE}")
    return [Label(*row) for row in rows]


def stored_modality(folder: Path, query: str) -> str | None:
    """The modality of a query that has labels; None for others."""
    with database.connection(folder) as base:
        found = None
        if _has_tables(base):
            select = "SELECT modality FROM queries WHERE query = ?"
            found = base.execute(select, (query,)).fetchone()
    return found[0] if found else None


def stored_pictures(folder: Path, query: str) -> Iterator[bytes]:
    """The frames of a query that has labels, as PNGs, in order of time."""
    with database.connection(folder) as base:
        select = "SELECT picture FROM query_frames WHERE query = ? ORDER BY number"
        for (picture,) in base.execute(select, (query,)):
            yield picture


def _has_tables(base) -> bool:
    return base.execute("SELECT 1 FROM sqlite_master WHERE name = 'labels'").fetchone() is not None

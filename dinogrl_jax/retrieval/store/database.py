"""The SQLite file of a gallery: what is known of each tracklet, and how many there are.

A place is a tracklet's number, from 0 on in the order in which they were added; the files of
descriptors have its row at the same place. What counts is what is committed here: rows behind that
are leftovers of an add that did not end.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.shapes import json_value
from dinogrl_jax.retrieval.store.bounds import Directions
from dinogrl_jax.retrieval.store.source import Source, Threshold

FILE = "gallery.sqlite"
LAYOUT = 2  # of the folder; there is no migration from another
PATIENCE = 60  # seconds that a reader waits for a writer's commit, which takes milliseconds
SCHEMA = (
    "CREATE TABLE facts (content TEXT NOT NULL)",
    "CREATE TABLE tracklets (place INTEGER PRIMARY KEY, identity TEXT NOT NULL, "
    "camera TEXT NOT NULL, modality TEXT NOT NULL, time REAL)",
    "CREATE INDEX filters ON tracklets (camera, modality, time)",
    "CREATE TABLE details (place INTEGER PRIMARY KEY, same TEXT UNIQUE, name TEXT NOT NULL, "
    "frames TEXT NOT NULL, thumbnail BLOB NOT NULL)",
    "CREATE TABLE directions (offsets BLOB NOT NULL, basis BLOB NOT NULL)",
)
LABELS = (  # people's answers: a gallery has these tables from the first one on
    "CREATE TABLE queries (query TEXT PRIMARY KEY, modality TEXT NOT NULL)",
    "CREATE TABLE query_frames (query TEXT NOT NULL, number INTEGER NOT NULL, "
    "picture BLOB NOT NULL, PRIMARY KEY (query, number))",
    "CREATE TABLE labels (query TEXT NOT NULL, place INTEGER NOT NULL, label TEXT NOT NULL, "
    "time REAL NOT NULL, PRIMARY KEY (query, place))",
)
KNOWN = (set(SCHEMA), {*SCHEMA, *LABELS})
SHAPE = {
    "layout": int,
    "fingerprint": str,
    "title": str,
    "distance": str,
    "thresholds": [[float]],
    "parts": int,
    "channels": int,
    "dtype": str,
    "rounding": float,
}


class Facts(NamedTuple):
    """What holds for all descriptors of a gallery."""

    source: Source
    parts: int
    channels: int
    dtype: str  # of the stored descriptors: an entry of files.DTYPES
    rounding: float = 0.0  # the largest mean over parts of what storing took from a descriptor


class Entry(NamedTuple):
    """What a gallery keeps of a tracklet, beside its descriptor."""

    name: str
    identity: str  # "" unknown
    camera: str  # "" unknown
    modality: str
    time: float | None  # seconds since 1970 (UTC), of its first frame
    frames: tuple[str, ...]
    thumbnail: bytes  # JPEG; empty where there is none
    same: str | None  # equal for a tracklet that is added again; None: nobody can tell


class Stored(NamedTuple):
    """What was committed when it was looked up."""

    facts: Facts
    count: int  # tracklets
    directions: Directions | None  # of the bounds, if there are enough tracklets


@contextlib.contextmanager
def connection(folder: Path, write: bool = False) -> Iterator[sqlite3.Connection]:
    """The gallery's database, in one transaction, which is undone where the block raises.

    Raises InputError for a file that is none of ours, is damaged, or cannot be written.
    """
    path = folder / FILE
    try:
        # A reader undoes what a killed writer has left half done, if it may write.
        mode = "rwc" if write else "rw" if os.access(path, os.W_OK) else "ro"
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with contextlib.closing(
            sqlite3.connect(address, PATIENCE, isolation_level=None, uri=True)
        ) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cache_spill = OFF")  # it would keep readers out until the end
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            _check_schema(database, path, write)
            yield database
            database.execute("COMMIT")  # otherwise closing undoes it
    except sqlite3.Error as error:
        reason = str(error)[:160]
        if write and isinstance(error, sqlite3.OperationalError):
            raise InputError(f"{path}: cannot be written ({reason}): nothing was added") from error
        raise InputError(f"{path} cannot be read as a gallery ({reason})") from error


def _check_schema(database: sqlite3.Connection, path: Path, write: bool) -> None:
    """Raise InputError unless there are our tables and nothing else, triggers for instance."""
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    found = {sql for (sql,) in database.execute(query)}
    if not found and write:
        for line in SCHEMA:
            database.execute(line)
    elif found and found not in KNOWN:  # empty: of a first add that did not end
        raise InputError(f"{path} is no gallery of this version: choose another folder")


def stored(database: sqlite3.Connection) -> Stored | None:
    """What is committed; None where the gallery is empty. InputError for damaged facts."""
    if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        return None
    row = database.execute("SELECT content FROM facts").fetchone()
    if row is None:
        return None
    with errors_naming("facts of the gallery"):
        content = json_value(row[0], SHAPE)
        if content["layout"] != LAYOUT:
            raise InputError(
                f"layout {content['layout']} is not read: use the version that made it"
            )
        facts = _facts_of(content)
    (count,) = database.execute("SELECT coalesce(max(place) + 1, 0) FROM tracklets").fetchone()
    found = database.execute("SELECT offsets, basis FROM directions").fetchone()
    if found is None:
        return Stored(facts, count, None)
    try:
        directions = Directions.from_bytes(*found, facts.parts, facts.channels)
    except (TypeError, ValueError) as error:
        raise InputError(f"the gallery's directions are damaged: restore its {FILE}") from error
    return Stored(facts, count, directions)


def write_facts(database: sqlite3.Connection, facts: Facts) -> None:
    """Replace the facts."""
    source = facts.source
    content = {
        **source._asdict(),
        **facts._asdict(),
        "layout": LAYOUT,
        "thresholds": [list(x) for x in source.thresholds],
    }
    del content["source"]
    database.execute("DELETE FROM facts")
    database.execute("INSERT INTO facts VALUES (?)", (json.dumps(content),))


def _facts_of(content: dict[str, Any]) -> Facts:
    if any(len(x) != 2 for x in content["thresholds"]):
        raise InputError("thresholds are no pairs")
    if min(content["parts"], content["channels"]) < 1:
        raise InputError("descriptors have no numbers")
    thresholds = tuple(Threshold(*map(float, x)) for x in content["thresholds"])
    named = (content[name] for name in ("fingerprint", "title", "distance"))
    facts = (content[name] for name in ("parts", "channels", "dtype"))
    return Facts(Source(*named, thresholds), *facts, float(content["rounding"]))


def write_directions(database: sqlite3.Connection, directions: Directions) -> None:
    database.execute("INSERT INTO directions VALUES (?, ?)", directions.as_bytes())


def write_entries(database: sqlite3.Connection, first: int, entries: Sequence[Entry]) -> None:
    """Add tracklets, at places from `first` on."""
    rows = list(enumerate(entries, first))
    database.executemany(
        "INSERT INTO tracklets VALUES (?, ?, ?, ?, ?)",
        ((place, x.identity, x.camera, x.modality, x.time) for place, x in rows),
    )
    database.executemany(
        "INSERT INTO details VALUES (?, ?, ?, ?, ?)",
        ((place, x.same, x.name, json.dumps(x.frames), x.thumbnail) for place, x in rows),
    )


def known(database: sqlite3.Connection, same: Sequence[str | None]) -> list[bool]:
    """Whether each tracklet is in the gallery."""
    query = "SELECT 1 FROM details WHERE same = ?"
    return [x is not None and database.execute(query, (x,)).fetchone() is not None for x in same]


def entries_at(database: sqlite3.Connection, places: Sequence[int]) -> list[Entry]:
    """The tracklets at places; InputError where one has lost what was kept of it."""
    query = (
        "SELECT name, identity, camera, modality, time, frames, thumbnail, same "
        "FROM tracklets JOIN details USING (place) WHERE place = ?"
    )
    found = []
    for place in places:
        row = database.execute(query, (place,)).fetchone()
        if row is None:
            raise InputError(f"the gallery has lost tracklet {place}: restore its {FILE}")
        if [type(x) for x in row[:4]] != [str] * 4 or type(row[6]) is not bytes:
            raise InputError(f"the gallery's tracklet {place} is damaged: restore its {FILE}")
        entry = Entry(*row)
        found.append(entry._replace(frames=tuple(json_value(entry.frames, [str]))))
    return found


def filtered_places(
    database: sqlite3.Connection,
    cameras: Sequence[str] | None,
    modalities: Sequence[str] | None,
    since: float | None,
    until: float | None,
) -> Int[np.ndarray, " n"] | None:
    """The places of tracklets that fit, ascending; None if nothing was asked.

    Tracklets of unknown time fit no bound.
    """
    conditions, values = [], []
    for column, words in (("camera", cameras), ("modality", modalities)):
        if words is not None:
            conditions.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(words)))
    for comparison, bound in ((">=", since), ("<=", until)):
        if bound is not None:
            conditions.append(f"time {comparison} ?")
            values.append(bound)
    if not conditions:
        return None
    query = f"SELECT place FROM tracklets WHERE {' AND '.join(conditions)}"
    return np.sort(np.fromiter((place for (place,) in database.execute(query, values)), int))

"""A gallery on disk, for programs: tracklets are added, and searched exactly."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import ArrayLike, Float32, Shaped

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.locks import lock_in_turn
from dinogrl_jax.retrieval.distances import distance_formula
from dinogrl_jax.retrieval.store import database, files
from dinogrl_jax.retrieval.store.bounds import (
    BOUNDED,
    LARGEST,
    SAMPLE,
    Directions,
    fitted_directions,
)
from dinogrl_jax.retrieval.store.database import Entry, Facts, Stored
from dinogrl_jax.retrieval.store.entries import (
    check_modalities,
    entries_of_columns,
    label_text,
    new_ones,
    seconds_of,
)
from dinogrl_jax.retrieval.store.ranking import FEW, nearest
from dinogrl_jax.retrieval.store.source import Source

Time = float | int | str | datetime  # seconds since 1970 (UTC), ISO 8601, or an instant
PATIENCE = 60.0  # seconds that an add waits for another process's
AT_ONCE = 1024  # descriptors that are projected again where directions are fitted


@runtime_checkable
class Embedder(Protocol):
    """What made descriptors; `dinogrl_jax.load` returns one."""

    source: Source


class Found(NamedTuple):
    """A tracklet that a search found."""

    name: str  # as it was added: its first frame or its folder
    identity: str  # "" unknown
    camera: str  # "" unknown
    modality: str  # "visible" or "infrared"
    time: float | None  # seconds since 1970 (UTC); None unknown
    frames: tuple[str, ...]
    thumbnail: bytes  # JPEG; empty where there is none
    place: int  # its number, in the order in which tracklets were added
    distance: float  # by the model's distance
    # At most this share of pairs of different people is as near, by the model's evaluation; 1
    # behind its last threshold, None where it has none.
    false_accepts: float | None


class Gallery:
    """A folder of descriptors with what is known of their tracklets; `open` returns one.

    Several processes and threads may search and add at once: a search sees what is complete when it
    begins, and one process adds at a time. An add is there as a whole or not at all, whatever ends
    the process.

    Attributes:
        folder: where it lies.
        source: whose descriptors it holds: fingerprint, distance and thresholds of the model.
    """

    def __init__(self, folder: Path, source: Source, dtype: str, known: bool) -> None:
        self.folder, self.source, self._dtype = folder, source, dtype
        self._known = known  # whether somebody vouches that descriptors are the source's

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        model: Embedder | None = None,
        *,
        distance: str | None = None,
        dtype: str | None = None,
    ) -> "Gallery":
        """The gallery in a folder, or a new one, which the first `add` makes.

        Args:
            folder: of the gallery.
            model: what makes the descriptors that are added and searched, of `dinogrl_jax.load`. An
                existing gallery can be searched without it; whoever does so vouches for the
                descriptors.
            distance: of a new gallery of descriptors that no model of ours made.
            dtype: of stored descriptors, "float32" (the default), "float16" or "bfloat16".
                `rounding` says how far distances move.

        Raises:
            InputError: for a gallery of another model, another distance or dtype than asked, a
                folder that holds something else, and a new gallery without a model or distance.
        """
        path = Path(folder)
        source = Source("", "unknown", distance or "") if model is None else model.source
        if distance is not None and source.distance != distance:
            raise InputError(f"distance = {distance!r}: the model ranks by {source.distance!r}")
        if dtype is not None:
            files.row_dtype(dtype)
        at = _committed(path)
        if at is not None:
            facts = at.facts
            _check_source(path, facts.source, source, model is not None, distance)
            if dtype not in (None, facts.dtype):
                raise InputError(f"{path} holds {facts.dtype}, not {dtype}: choose another folder")
            known = model is not None or not facts.source.fingerprint
            thresholds = source.thresholds or facts.source.thresholds
            merged = facts.source._replace(thresholds=thresholds)
            return cls(path, merged, facts.dtype, known)
        if path.exists() and (not path.is_dir() or any(not _is_ours(x) for x in path.iterdir())):
            raise InputError(f"{path} is no gallery and not empty: choose another folder")
        if not source.distance:
            raise InputError(f"{path} holds no gallery: a new one needs a model, or a distance")
        distance_formula(source.distance)
        return cls(path, source, dtype or "float32", known=True)

    def __len__(self) -> int:
        """How many tracklets it has."""
        at = _committed(self.folder)
        return at.count if at else 0

    @property
    def rounding(self) -> float:
        """The largest mean over parts of the length that storing took from a part of a descriptor.

        No distance "part_euclidean" is farther from that of the descriptors as given: 0 for
        float32.
        """
        at = _committed(self.folder)
        return at.facts.rounding if at else 0.0

    def add(
        self,
        embedding: Shaped[ArrayLike, "n ..."],
        *,
        modality: str | Sequence[str],
        camera: Sequence[int | str | None] | None = None,
        identity: Sequence[int | str | None] | None = None,
        time: Sequence[Time | None] | None = None,
        frames: Sequence[Sequence[str]] | None = None,
        name: Sequence[str] | None = None,
        thumbnail: Sequence[bytes] | None = None,
    ) -> int:
        """Add tracklets, all or none; returns how many of them are new.

        One whose name, frames, camera, modality and time are known already is passed over, so that
        an interrupted job can be begun again.

        Args:
            embedding: descriptors [n, p, d] or [n, d], as the model made them.
            modality: "visible" or "infrared", of all or of each.
            camera: numbers or names; None, -1 and "" are unknown, here and of identities.
            identity: where they are known.
            time: of the first frame, seconds since 1970 (UTC), a datetime, or ISO 8601 text. Times
                without a zone are this machine's.
            frames: paths of the frames, in order of time.
            name: for people; default the first frame.
            thumbnail: JPEGs; default a small picture of the middle one of the frames.

        Raises:
            InputError: for another shape or numbers that are not finite, huge, or beyond the stored
                type, columns of another length, a gallery of another model, one that another
                process keeps in use, and files that cannot be written. Nothing is added then.
        """
        if not self._known:
            raise InputError(
                f"{self.folder} holds descriptors of {self.source.title}: open it with that model "
                "to add, Gallery.open(folder, model)"
            )
        rows = _checked_rows(embedding, self._dtype)
        entries = entries_of_columns(
            len(rows), modality, camera, identity, time, frames, name, thumbnail
        )
        with lock_in_turn(self.folder, PATIENCE):
            with database.connection(self.folder, write=True) as base:
                return self._add(base, rows, entries)

    def known(
        self,
        frames: Sequence[Sequence[str]],
        *,
        modality: str | Sequence[str],
        camera: Sequence[int | str | None] | None = None,
        time: Sequence[Time | None] | None = None,
        name: Sequence[str] | None = None,
    ) -> list[bool]:
        """Which of n tracklets `add` would pass over; arguments and errors as there."""
        empty = [b""] * len(frames)
        entries = entries_of_columns(len(frames), modality, camera, None, time, frames, name, empty)
        if _committed(self.folder) is None:
            return [False] * len(frames)
        with database.connection(self.folder) as base:
            return database.known(base, [x.same for x in entries])

    def search(
        self,
        embedding: Shaped[ArrayLike, "..."],
        k: int = 10,
        *,
        cameras: Sequence[int | str] | None = None,
        modalities: Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
    ) -> list[Found]:
        """The k nearest tracklets, nearest first, or all where there are fewer.

        The answer is exact: that of comparing all, equally near ones in the order of adding.

        Args:
            embedding: the descriptor [p, d] of a query, or [d].
            k: how many.
            cameras: those that count; default all, the unknown one included.
            modalities: likewise.
            since, until: times, both included, as `add` takes them. Tracklets of unknown time do
                not count then.

        Raises:
            InputError: for k below 1, a descriptor of another shape or that is not finite, unknown
                modalities, times that cannot be read, and a gallery that is empty or damaged.
        """
        if k < 1:
            raise InputError(f"k = {k}: ask for 1 or more tracklets")
        bounds = [None if x is None else seconds_of(x) for x in (since, until)]
        if modalities is not None:
            check_modalities(modalities)
        cameras = None if cameras is None else [label_text(x, "camera") for x in cameras]
        if not (self.folder / database.FILE).exists():
            raise InputError(f"{self.folder} holds no tracklets yet: add some first")
        with database.connection(self.folder) as base:
            at = database.stored(base)
            if at is None or not at.count:
                raise InputError(f"{self.folder} holds no tracklets yet: add some first")
            query = self._query(at.facts, embedding)
            places = database.filtered_places(base, cameras, modalities, *bounds)
        found = nearest(self.folder, at, query, k, places)
        with database.connection(self.folder) as base:
            entries = database.entries_at(base, found.places.tolist())
        return [
            Found(*entry[:7], place, distance, self.source.false_accepts(distance))
            for entry, place, distance in zip(entries, *map(np.ndarray.tolist, found), strict=True)
        ]

    def _query(
        self, facts: Facts, embedding: Shaped[ArrayLike, "..."]
    ) -> Float32[np.ndarray, "p d"]:
        query = np.asarray(embedding)
        query = query[None] if query.ndim == 1 else query
        if query.shape != (facts.parts, facts.channels):
            wanted = f"[{facts.parts}, {facts.channels}]"
            raise InputError(f"the query has shape {list(query.shape)}, the gallery's are {wanted}")
        return _checked_rows(query[None], "float32")[0]

    def _add(self, base, rows: Float32[np.ndarray, "n p d"], entries: list[Entry]) -> int:
        at = database.stored(base)
        if at is None:
            at = Stored(Facts(self.source, *rows.shape[1:], self._dtype), 0, None)
        facts = at.facts
        _check_source(self.folder, facts.source, self.source, True, None)
        if rows.shape[1:] != (facts.parts, facts.channels):
            both = f"{list(rows.shape[1:])}, those of {self.folder} {[facts.parts, facts.channels]}"
            raise InputError(f"descriptors are {both}")
        new = new_ones(entries, database.known(base, [x.same for x in entries]))
        rows, entries = rows[new], [entries[i] for i in new]
        kept = rows.astype(files.row_dtype(facts.dtype), copy=False)
        facts = facts._replace(
            source=self.source, rounding=max(facts.rounding, _rounding(rows, kept))
        )
        files.write_descriptors(self.folder, at, kept)
        directions = self._write_bounds(at, kept)
        # The database comes last: readers wait for it.
        database.write_facts(base, facts)
        database.write_entries(base, at.count, entries)
        if directions is not None:
            database.write_directions(base, directions)
        return len(new)

    def _write_bounds(self, at: Stored, kept: Shaped[np.ndarray, "n p d"]) -> Directions | None:
        """Write what bounds read of the new descriptors; of all, once they suffice for directions.

        Returns these, where they are new.
        """
        after = at._replace(count=at.count + len(kept))
        if at.facts.source.distance not in BOUNDED or after.count <= FEW:
            return None
        if at.directions is not None:
            files.write_bounds(self.folder, after, at.count, _pieces(kept))
            return None
        stored = files.DescriptorFile(self.folder, after)
        with stored.opened() as file:
            chosen = np.linspace(0, after.count - 1, SAMPLE).astype(int)
            directions = fitted_directions(stored.rows(file, chosen.tolist()).astype(np.float32))
            blocks = (
                stored.block(file, start, min(start + AT_ONCE, after.count))
                for start in range(0, after.count, AT_ONCE)
            )
            files.write_bounds(self.folder, after._replace(directions=directions), 0, blocks)
        return directions


def _rounding(rows: Float32[np.ndarray, "n p d"], kept: Shaped[np.ndarray, "n p d"]) -> float:
    """The largest mean over parts of the length of what storing took from a part."""
    if rows.dtype == kept.dtype:
        return 0.0
    lost = [
        np.linalg.norm(b.astype(np.float32) - a, axis=2).mean(1).max()
        for a, b in zip(_pieces(rows), _pieces(kept), strict=True)
    ]
    return float(max(lost, default=0.0))


def _pieces(rows: Shaped[np.ndarray, "n p d"]) -> Iterator[Shaped[np.ndarray, "m p d"]]:
    return (rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE))


def _committed(folder: Path) -> Stored | None:
    """What a gallery holds; None where there is none."""
    if not (folder / database.FILE).exists():
        return None
    with database.connection(folder) as base:
        return database.stored(base)


def _is_ours(path: Path) -> bool:
    """Whether a file is left by an add that did not end, or is hidden."""
    names = (database.FILE, files.DESCRIPTORS, files.BOUNDS)
    return path.name.startswith((".", *names))


def _check_source(
    folder: Path, there: Source, own: Source, known: bool, distance: str | None
) -> None:
    """Raise InputError for another model, or another distance where one was given."""
    if known and there.fingerprint != own.fingerprint:
        raise InputError(
            f"{folder} holds descriptors of another model ({there.title}, not {own.title}): their "
            "distances mean nothing; choose another folder"
        )
    if distance is not None and there.distance != distance:
        raise InputError(f"{folder} ranks by {there.distance!r}, not {distance!r}")


def _checked_rows(embedding: Shaped[ArrayLike, "..."], dtype: str) -> Float32[np.ndarray, "n p d"]:
    """Descriptors in float32, [n, p, d]; InputError unless they are numbers that can be stored."""
    rows = np.asarray(embedding)
    is_float = rows.dtype.kind == "f" or rows.dtype == files.DTYPES["bfloat16"]
    if rows.ndim not in (2, 3) or not rows.size or not is_float:
        raise InputError(
            f"descriptors are {rows.dtype} of shape {list(rows.shape)}; they have to be "
            "floating-point, [tracklets, parts, channels] or [tracklets, channels], and not empty"
        )
    rows = rows.astype(np.float32, copy=False)
    rows = rows if rows.ndim == 3 else rows[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        stored = (x.astype(files.row_dtype(dtype)).astype(np.float64) for x in _pieces(rows))
        length = np.concatenate([np.linalg.norm(x, axis=(1, 2)) for x in stored])
    wrong = ~(length < LARGEST)
    if wrong.any():
        raise InputError(
            f"descriptor {int(np.argmax(wrong))} has NaN, infinite or huge values, or some that "
            f"{dtype} does not hold"
        )
    return rows

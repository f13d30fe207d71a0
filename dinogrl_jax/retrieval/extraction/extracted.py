"""The descriptors of all tracklets that can be read, and a list of what cannot."""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval.embedding import EmbeddedBatch, mean_descriptors
from dinogrl_jax.retrieval.extraction.unfinished import Unfinished

BAD_FRAMES = {  # what is done about frames that cannot be read, as `evaluation_batches` has it
    "stop": {},
    "skip": {"skip": True},
    "neighbour": {"replace": True, "skip": True},
}
STANDS_IN = "cannot be read: a neighbour stands in for it"
DTYPES = {"float32": np.float32, "float16": np.float16}


class LeftOut(NamedTuple):
    """What could not be read."""

    tracklets: dict[int, str]  # positions of those that are left out, and the reasons
    frames: list[str]  # for which neighbours stand in

    def lines(self, listed: Sequence[ListedTracklet]) -> list[dict[str, str]]:
        """A line of JSON for each tracklet that is left out, then for each frame."""
        made = [
            {"path": listed[position].path, "reason": reason}
            for position, reason in sorted(self.tracklets.items())
        ]
        return made + [{"frame": frame, "reason": STANDS_IN} for frame in self.frames]


def extract_share(
    make_batches: Callable[..., Iterator[EmbeddedBatch]],
    sets: Mapping[str, Sequence[Tracklet]],
    bad_frames: str,
    unfinished: Unfinished,
) -> None:
    """Make what is missing of this process's share of the batches of several sets.

    Says on stderr what of it was made before.

    make_batches: `embedding.embedded_batches` of tracklets and options. bad_frames: a name in
    BAD_FRAMES.

    Raises InputError for a frame that cannot be read, unless `bad_frames` has it otherwise.
    """
    for name, tracklets in sets.items():
        own = unfinished.share.numbers(unfinished.counts[name])
        wanted = sorted(set(own).intersection(unfinished.missing(name)))
        if before := len(own) - len(wanted):
            print(f"{name}: goes on behind {before} batches that were made before", file=sys.stderr)
        if not wanted:
            continue
        options = BAD_FRAMES[bad_frames]
        with contextlib.closing(make_batches(tracklets, wanted=wanted, **options)) as batches:
            for number, batch in zip(wanted, batches, strict=True):
                unfinished.append(name, number, batch)


def extracted(
    sets: Mapping[str, Sequence[Tracklet]], unfinished: Unfinished
) -> tuple[dict[str, Float[np.ndarray, "n p d"]], LeftOut]:
    """The descriptors of several sets of the same n tracklets by their names, and what is left out.

    The rows of tracklets that are left out are of no use.

    unfinished: with all batches of all sets.

    Raises InputError as `mean_descriptors`, and where no tracklet is left.
    """
    left_out, frames = {}, {}

    def noted(batches: Iterator[EmbeddedBatch]) -> Iterator[EmbeddedBatch]:
        for batch in batches:
            left_out.update(batch.unreadable)
            frames.update(dict.fromkeys(batch.replaced))
            yield batch

    made = {}
    for name, tracklets in sets.items():
        made[name] = mean_descriptors(noted(unfinished.batches(name)), tracklets)
        if len(left_out) == len(tracklets):
            reason = left_out[min(left_out)]
            raise InputError(f"none of {len(tracklets)} tracklets can be read: {reason}")
    return made, LeftOut(left_out, sorted(frames))


def as_dtype(
    descriptors: Float[np.ndarray, "n p d"], dtype: str
) -> tuple[Float[np.ndarray, "n p d"], float]:
    """Descriptors as they are stored, and the largest error of one, as a share of its length.

    Raises InputError for numbers that the type cannot hold.
    """
    with np.errstate(over="ignore"):
        stored = descriptors.astype(DTYPES[dtype])
    if not np.isfinite(stored).all():
        largest = float(np.abs(descriptors).max())
        raise InputError(f"--dtype {dtype} cannot hold numbers of {largest:.3g}: say float32")
    flat = descriptors.reshape(len(descriptors), -1)
    errors = np.linalg.norm(flat - stored.reshape(flat.shape).astype(np.float32), axis=1)
    lengths = np.maximum(np.linalg.norm(flat, axis=1), np.finfo(np.float32).tiny)
    return stored, float((errors / lengths).max())


def write_left_out(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    """Write a line of JSON for each thing; where there is none, no file stays from before."""
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def tracklets_digest(listed: Sequence[ListedTracklet]) -> str:
    """SHA-256 of what is extracted: names of frames, and what is said of each tracklet."""
    digest = hashlib.sha256()
    for tracklet, path in listed:
        digest.update(json.dumps([*map(str, tracklet), path]).encode())
    return digest.hexdigest()

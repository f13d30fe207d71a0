"""What a batch is, and how it is made of tracklets: purely from the settings and its index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from dinogrl_jax.data import sampling, transforms
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.errors import InputError


class Batch(NamedTuple):
    """Pairs of a visible and an infrared clip of one identity."""

    frames: Float32[np.ndarray, "b 2 t h w 3"]  # axis 1: visible, infrared
    labels: Int32[np.ndarray, " b"]


class EvaluationBatch(NamedTuple):
    """Clips of one modality; an incomplete batch is filled up with its last tracklet."""

    frames: Float32[np.ndarray, "b 1 t h w 3"]
    positions: Int32[np.ndarray, " b"]  # in the list of tracklets
    valid: Bool[np.ndarray, " b"]  # False where filled up
    modality: str


class ClipShape(NamedTuple):
    frames: int
    height: int  # pixels
    width: int


def part(size: int, process_index: int, process_count: int) -> slice:
    """This process's rows of a batch of `size` rows."""
    if size % process_count:
        raise InputError(f"a batch of {size} cannot be divided among {process_count} processes")
    each = size // process_count
    return slice(process_index * each, (process_index + 1) * each)


@dataclass(frozen=True)
class TrainingRecipe:
    """Makes the batch of a step in the memory it is given."""

    tracklets: Sequence[Tracklet]
    members: Sequence[sampling.Members]
    identities: int
    tracklets_per_identity: int
    part: slice
    shape: ClipShape
    augment: transforms.Augment
    seed: int

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.part.stop - self.part.start, 2, *self.shape, 3

    def __call__(self, step: int, frames: Float32[np.ndarray, "b 2 t h w 3"]) -> Batch:
        pairs = sampling.identity_pairs(
            self.members, self.identities, self.tracklets_per_identity, self.seed, step
        )
        rows = range(len(pairs.labels))[self.part]
        for place, row in enumerate(rows):
            rng = sampling.stream(self.seed, sampling.EXAMPLES, step * len(pairs.labels) + row)
            self.fill_clip(frames[place, 0], self.tracklets[pairs.visible[row]], rng)
            self.fill_clip(frames[place, 1], self.tracklets[pairs.infrared[row]], rng)
        return Batch(frames, pairs.labels[self.part].astype(np.int32))

    def fill_clip(
        self, out: Float32[np.ndarray, "t h w 3"], tracklet: Tracklet, rng: np.random.Generator
    ) -> None:
        chosen = sampling.one_per_chunk(len(tracklet.frames), self.shape.frames, rng)
        draws = transforms.draws(*self.shape, tracklet.modality, self.augment, rng)
        transforms.fill_clip(out, [tracklet.frames[index] for index in chosen], draws)


@dataclass(frozen=True)
class EvaluationRecipe:
    """Makes the batch of an index in the memory it is given."""

    tracklets: Sequence[Tracklet]
    rows: Sequence[Sequence[int]]  # positions of tracklets, of each batch
    size: int
    part: slice
    shape: ClipShape

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.part.stop - self.part.start, 1, *self.shape, 3

    def __call__(self, index: int, frames: Float32[np.ndarray, "b 1 t h w 3"]) -> EvaluationBatch:
        row = self.rows[index]
        filled = np.array(row + row[-1:] * (self.size - len(row)), np.int32)
        positions = filled[self.part]
        valid = (np.arange(self.size) < len(row))[self.part]
        for place, position in enumerate(positions):
            # A filled place is a copy of the one before it, unless it is the first of its process.
            copied = place > 0 and not valid[place]
            if copied:
                frames[place] = frames[place - 1]
            else:
                self.fill_clip(frames[place, 0], self.tracklets[position])
        return EvaluationBatch(frames, positions, valid, self.tracklets[row[0]].modality)

    def fill_clip(self, out: Float32[np.ndarray, "t h w 3"], tracklet: Tracklet) -> None:
        chosen = sampling.first_per_chunk(len(tracklet.frames), self.shape.frames)
        unchanged = [transforms.Draw()] * len(chosen)
        transforms.fill_clip(out, [tracklet.frames[index] for index in chosen], unchanged)

"""What a batch is, and how it is made of tracklets: purely from the settings and its index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from dinogrl_jax.data import sampling, transforms
from dinogrl_jax.data.frames import FrameError
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError


class Batch(NamedTuple):
    """Pairs of a visible and an infrared clip of one identity."""

    frames: Float32[np.ndarray, "b 2 t h w 3"]  # axis 1: visible, infrared
    cameras: Int32[np.ndarray, "b 2"]  # as the data set numbers them; -1 unknown
    labels: Int32[np.ndarray, " b"]
    replaced: tuple[str, ...] = ()  # unreadable frames, each of which a neighbour stands in for


class EvaluationBatch(NamedTuple):
    """Clips of one modality; an incomplete batch is filled up with its last clip."""

    frames: Float32[np.ndarray, "b 1 t h w 3"]
    cameras: Int32[np.ndarray, " b"]  # as the data set numbers them; -1 unknown
    labels: Int32[np.ndarray, " b"]  # of training tracklets; -1 in a test
    positions: Int32[np.ndarray, " b"]  # in the list of tracklets
    valid: Bool[np.ndarray, " b"]  # False where filled up
    modality: str
    replaced: tuple[str, ...] = ()  # unreadable frames, each of which a neighbour stands in for


class ClipShape(NamedTuple):
    frames: int
    height: int  # pixels
    width: int


def process_rows(size: int, process_index: int, process_count: int) -> slice:
    """This process's rows of a batch of `size` rows."""
    if size % process_count:
        raise InputError(f"a batch of {size} cannot be divided among {process_count} processes")
    each = size // process_count
    return slice(process_index * each, (process_index + 1) * each)


@dataclass(frozen=True)
class TrainingRecipe:
    """Makes the batch of a step in the memory it is given."""

    tracklets: Sequence[Tracklet]
    pairs: Callable[[int], sampling.Pairs]  # of a step, of all processes
    aligned: bool  # both clips of a pair show the same instants
    frame_rule: Callable
    own: slice  # this process's rows of a batch
    shape: ClipShape
    augment: transforms.Augment
    seed: int
    replace: bool  # an unreadable frame by its nearest readable neighbour, or stop

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.own.stop - self.own.start, 2, *self.shape, 3

    def __call__(self, step: int, frames: Float32[np.ndarray, "b 2 t h w 3"]) -> Batch:
        pairs = self.pairs(step)
        rows = range(len(pairs.labels))[self.own]
        replaced: list[str] = []
        for place, row in enumerate(rows):
            rng = sampling.stream(self.seed, sampling.EXAMPLES, step * len(pairs.labels) + row)
            pair = self.tracklets[pairs.visible[row]], self.tracklets[pairs.infrared[row]]
            lengths = [len(tracklet.frames) for tracklet in pair]
            shared = self.frame_rule(min(lengths), self.shape.frames, rng) if self.aligned else None
            for clip, tracklet in zip(frames[place], pair, strict=True):
                replaced += self.fill_clip(clip, tracklet, shared, rng)
        both = np.stack([pairs.visible, pairs.infrared], axis=1)[self.own]
        cameras = np.array([[self.tracklets[i].camera for i in pair] for pair in both], np.int32)
        labels = pairs.labels[self.own].astype(np.int32)
        return Batch(frames, cameras.reshape(-1, 2), labels, tuple(replaced))

    def names(self, step: int) -> list[str]:
        """The first frame of every tracklet in a step's batch, of all processes."""
        pairs = self.pairs(step)
        return [self.tracklets[i].frames[0] for i in (*pairs.visible, *pairs.infrared)]

    def fill_clip(
        self,
        out: Float32[np.ndarray, "t h w 3"],
        tracklet: Tracklet,
        chosen: Int[np.ndarray, " t"] | None,
        rng: np.random.Generator,
    ) -> list[str]:
        """Write a clip of the chosen frames, or of drawn ones; the frames that were replaced."""
        if chosen is None:
            chosen = self.frame_rule(len(tracklet.frames), self.shape.frames, rng)
        draws = transforms.draws(*self.shape, tracklet.modality, self.augment, rng)
        return fill_frames(out, tracklet.frames, chosen, draws, self.replace)


def fill_frames(
    out: Float32[np.ndarray, "t h w 3"],
    frames: Sequence[str],
    chosen: Int[np.ndarray, " t"],
    draws: Sequence[transforms.Draw],
    replace: bool,
) -> list[str]:
    """Write the chosen frames as drawn; the unreadable ones, for which a neighbour stands in.

    Raises FrameError for an unreadable frame if none are replaced.
    """
    replaced = []
    for frame, index, draw in zip(out, chosen.tolist(), draws, strict=True):
        try:
            transforms.fill_frame(frame, frames[index], draw)
        except FrameError as error:
            if not replace:
                raise
            fill_from_neighbour(frame, frames, index, draw, error)
            replaced.append(frames[index])
    return replaced


def fill_from_neighbour(
    out: Float32[np.ndarray, "h w 3"],
    frames: Sequence[str],
    index: int,
    draw: transforms.Draw,
    error: FrameError,
) -> None:
    """Write the readable frame that is nearest to an unreadable one, the earlier of two.

    Raises InputError if no frame of the tracklet can be read.
    """
    for neighbour in sorted(range(len(frames)), key=lambda other: abs(other - index))[1:]:
        try:
            return transforms.fill_frame(out, frames[neighbour], draw)
        except FrameError:
            continue
    raise InputError(f"{error}; no other frame of its tracklet can be read either") from error


@dataclass(frozen=True)
class IdentityPairs:
    """The batch rule "identity": see `sampling.identity_pairs`."""

    members: Sequence[sampling.Members]
    identities: int
    tracklets: int
    seed: int

    def __call__(self, step: int) -> sampling.Pairs:
        return sampling.identity_pairs(
            self.members, self.identities, self.tracklets, self.seed, step
        )


@dataclass(frozen=True)
class ListedPairs:
    """The batch rule "camera-pairs": the pairs of each step, listed beforehand."""

    pairs: sampling.Pairs
    rows: Int[np.ndarray, "steps b"]

    def __call__(self, step: int) -> sampling.Pairs:
        return sampling.Pairs(*(column[self.rows[step]] for column in self.pairs))


class Clip(NamedTuple):
    tracklet: int  # position in the list of tracklets
    number: int  # among the tracklet's clips


@dataclass(frozen=True)
class EvaluationRecipe:
    """Makes the batch of an index in the memory it is given."""

    tracklets: Sequence[Tracklet]
    rows: Sequence[Sequence[Clip]]  # of each batch
    clip_rule: str  # a name in sampling.TEST_CLIPS
    size: int  # of a batch, of all processes
    own: slice  # this process's rows of a batch
    shape: ClipShape
    labels: Mapping[int | str, int] | None = None  # of identities, where the tracklets train
    replace: bool = False  # an unreadable frame by its nearest readable neighbour, or stop

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.own.stop - self.own.start, 1, *self.shape, 3

    def __call__(self, index: int, frames: Float32[np.ndarray, "b 1 t h w 3"]) -> EvaluationBatch:
        row = self.rows[index]
        clips = [*row, *[row[-1]] * (self.size - len(row))][self.own]
        valid = (np.arange(self.size) < len(row))[self.own]
        replaced: list[str] = []
        for place, clip in enumerate(clips):
            # A filled place is a copy of the one before it, unless it is the first of its process.
            copied = place > 0 and not valid[place]
            if copied:
                frames[place] = frames[place - 1]
            else:
                replaced += self.fill_clip(frames[place, 0], clip)
        own = [self.tracklets[clip.tracklet] for clip in clips]
        labels = [-1 if self.labels is None else self.labels[one.identity] for one in own]
        return EvaluationBatch(
            frames,
            cameras=np.array([one.camera for one in own], np.int32),
            labels=np.array(labels, np.int32),
            positions=np.array([clip.tracklet for clip in clips], np.int32),
            valid=valid,
            modality=self.tracklets[row[0].tracklet].modality,
            replaced=tuple(replaced),
        )

    def fill_clip(self, out: Float32[np.ndarray, "t h w 3"], clip: Clip) -> list[str]:
        """Write a clip as it is; the frames that were replaced."""
        names = self.tracklets[clip.tracklet].frames
        chosen = sampling.TEST_CLIPS[self.clip_rule](len(names), self.shape.frames)[clip.number]
        return fill_frames(out, names, chosen, [transforms.Draw()] * len(chosen), self.replace)

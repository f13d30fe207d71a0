"""What a batch is, and how it is made of tracklets: purely from the settings and its index."""

import contextlib
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
    unreadable: tuple[tuple[int, str], ...] = ()  # positions, not valid here, and the reasons


Shape = tuple[int, int, int]  # of a clip: frames, height, width


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
    shape: Shape
    augment: transforms.Augment
    seed: int
    replace: bool  # an unreadable frame by its nearest readable neighbour, or stop
    upright: bool = False  # turn frames as their EXIF orientation says
    deep_range: tuple[float | int, ...] = ()  # of frames deeper than 8 bits: what becomes 0 and 255

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.own.stop - self.own.start, 2, *self.shape, 3

    def __call__(self, step: int, frames: Float32[np.ndarray, "b 2 t h w 3"]) -> Batch:
        pairs = self.pairs(step)
        rows = range(len(pairs.labels))[self.own]
        replaced: list[str] = []
        for clips, row in zip(frames, rows, strict=True):
            rng = sampling.stream(self.seed, sampling.EXAMPLES, step * len(pairs.labels) + row)
            pair = self.tracklets[pairs.visible[row]], self.tracklets[pairs.infrared[row]]
            counts = [len(tracklet.frames) for tracklet in pair]
            if self.aligned:
                shared = self.frame_rule(min(counts), self.shape[0], rng)
            for clip, tracklet, count in zip(clips, pair, counts, strict=True):
                chosen = shared if self.aligned else self.frame_rule(count, self.shape[0], rng)
                draws = transforms.draws(*self.shape, tracklet.modality, self.augment, rng)
                how = draws, self.replace, self.upright, self.deep_range
                replaced += fill_frames(clip, tracklet.frames, chosen, *how)
        both = np.stack([pairs.visible, pairs.infrared], axis=1)[self.own]
        cameras = np.array([[self.tracklets[i].camera for i in pair] for pair in both], np.int32)
        labels = pairs.labels[self.own].astype(np.int32)
        return Batch(frames, cameras.reshape(-1, 2), labels, tuple(replaced))

    def names(self, step: int) -> list[str]:
        """The first frame of every tracklet in a step's batch, of all processes."""
        pairs = self.pairs(step)
        return [self.tracklets[i].frames[0] for i in (*pairs.visible, *pairs.infrared)]


def fill_frames(
    out: Float32[np.ndarray, "t h w 3"],
    frames: Sequence[str],
    chosen: Int[np.ndarray, " t"],
    draws: Sequence[transforms.Draw],
    replace: bool,
    upright: bool = False,
    deep_range: Sequence[float | int] = (),
) -> list[str]:
    """Write the chosen frames as drawn; the unreadable ones, for which a neighbour stands in.

    That is the nearest readable frame, the earlier of two.

    Raises FrameError for an unreadable frame if none are replaced, InputError if no frame of the
    tracklet can be read.
    """
    replaced = []
    for frame, index, draw in zip(out, chosen.tolist(), draws, strict=True):
        try:
            transforms.fill_frame(frame, frames[index], draw, upright, deep_range)
        except FrameError as error:
            if not replace:
                raise
            replaced.append(frames[index])
            for other in np.argsort(abs(np.arange(len(frames)) - index), kind="stable")[1:]:
                with contextlib.suppress(FrameError):
                    transforms.fill_frame(frame, frames[other], draw, upright, deep_range)
                    break
            else:
                text = f"{error}; no other frame of its tracklet can be read either"
                raise InputError(text) from error
    return replaced


@dataclass(frozen=True)
class EvaluationRecipe:
    """Makes the batch of an index in the memory it is given."""

    tracklets: Sequence[Tracklet]
    rows: Sequence[Sequence[tuple[int, int]]]  # of each batch: tracklets, numbers of their clips
    clip_rule: str  # a name in sampling.TEST_CLIPS
    size: int  # of a batch, of all processes
    own: slice  # this process's rows of a batch
    shape: Shape
    labels: Mapping[int | str, int] | None = None  # of identities, where the tracklets train
    replace: bool = False  # an unreadable frame by its nearest readable neighbour, or stop
    upright: bool = False  # turn frames as their EXIF orientation says
    deep_range: tuple[float | int, ...] = ()  # of frames deeper than 8 bits: what becomes 0 and 255
    skip: bool = False  # clips with a frame that stays unreadable, instead of an error
    # (position of a tracklet, its number of frames, how many) → indices, in place of the clip rule
    drawn_frames: Callable[[int, int, int], Int[np.ndarray, " t"]] | None = None

    @property
    def frames_shape(self) -> tuple[int, ...]:
        return self.own.stop - self.own.start, 1, *self.shape, 3

    def __call__(self, index: int, frames: Float32[np.ndarray, "b 1 t h w 3"]) -> EvaluationBatch:
        row = self.rows[index]
        clips = [*row, *[row[-1]] * (self.size - len(row))][self.own]
        valid = (np.arange(self.size) < len(row))[self.own]
        own = [self.tracklets[position] for position, _ in clips]
        rule, replaced, unreadable = sampling.TEST_CLIPS[self.clip_rule], [], []
        for place, (tracklet, (position, number)) in enumerate(zip(own, clips, strict=True)):
            # A filled place is a copy of the one before it, unless it is the first of its process.
            if place > 0 and not valid[place]:
                frames[place] = frames[place - 1]
                continue
            given = len(tracklet.frames), self.shape[0]
            draw = self.drawn_frames
            chosen = rule(*given)[number] if draw is None else draw(position, *given)
            draws = [transforms.Draw()] * len(chosen)
            how = draws, self.replace, self.upright, self.deep_range
            try:
                replaced += fill_frames(frames[place, 0], tracklet.frames, chosen, *how)
            except InputError as error:
                if not self.skip:
                    raise
                frames[place], valid[place] = 0, False
                unreadable.append((position, str(error)))
        labels = [-1 if self.labels is None else self.labels[one.identity] for one in own]
        return EvaluationBatch(
            frames,
            cameras=np.array([one.camera for one in own], np.int32),
            labels=np.array(labels, np.int32),
            positions=np.array([position for position, _ in clips], np.int32),
            valid=valid,
            modality=own[0].modality,
            replaced=tuple(replaced),
            unreadable=tuple(unreadable),
        )

"""Which frames of a tracklet, and which tracklets of a batch: pure functions of a random stream.

Source: the frame rules of MITML, VLD, DinoGRL and BUPTCampus, and DinoGRL's IdentitySampler.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dinogrl_jax.data.tracklets import MODALITIES, Tracklet

# What a random stream is for: streams of different purposes never coincide.
BATCHES, EXAMPLES = 0, 1


def stream(seed: int, purpose: int, index: int) -> np.random.Generator:
    """The random stream of one step or one example, whatever was drawn before it."""
    return np.random.default_rng([seed, purpose, index])


# Frame rules: indices into the n >= 1 frames of a tracklet. The first two cut the tracklet into
# `frames` chunks of ceil(n / frames); chunks past the end hold the last frame.


def one_per_chunk(n: int, frames: int, rng: np.random.Generator) -> Int[np.ndarray, " {frames}"]:
    """A uniformly random frame of each chunk ("video_train"); every frame where n == `frames`."""
    size = -(-n // frames)
    chosen = np.arange(frames) * size + rng.integers(size, size=frames)
    return np.minimum(chosen, n - 1)


def first_per_chunk(n: int, frames: int) -> Int[np.ndarray, " {frames}"]:
    """The first frame of each chunk ("video_test")."""
    return np.minimum(np.arange(frames) * -(-n // frames), n - 1)


def uniform(n: int, frames: int) -> Int[np.ndarray, " {frames}"]:
    """Frames at equal distances from the first one on, rounded down (BUPTCampus, test)."""
    return np.arange(frames) * n // frames


def sorted_random(n: int, frames: int, rng: np.random.Generator) -> Int[np.ndarray, " {frames}"]:
    """Distinct random frames in order, repeated only where n < `frames` (BUPTCampus, training)."""
    return np.sort(rng.choice(n, frames, replace=n < frames))


def dense_clips(n: int, frames: int) -> Int[np.ndarray, "clips {frames}"]:
    """All frames as consecutive clips; the last one repeats itself from its own start."""
    starts = np.arange(0, n, frames)[:, None]
    return starts + np.arange(frames) % np.minimum(n - starts, frames)


class Members(NamedTuple):
    """Positions of one identity's tracklets."""

    visible: Int[np.ndarray, " v"]
    infrared: Int[np.ndarray, " i"]


def members(tracklets: Sequence[Tracklet], labels: Mapping[int | str, int]) -> list[Members]:
    """The tracklets of each label."""
    positions: list[tuple[list[int], list[int]]] = [([], []) for _ in labels]
    for position, tracklet in enumerate(tracklets):
        label, modality = labels[tracklet.identity], MODALITIES.index(tracklet.modality)
        positions[label][modality].append(position)
    return [Members(np.array(visible), np.array(infrared)) for visible, infrared in positions]


class Pairs(NamedTuple):
    """Tracklets of a batch: each visible one beside an infrared one of the same identity."""

    labels: Int[np.ndarray, " b"]
    visible: Int[np.ndarray, " b"]  # positions of tracklets
    infrared: Int[np.ndarray, " b"]


def identity_pairs(
    by_label: Sequence[Members], identities: int, tracklets: int, seed: int, step: int
) -> Pairs:
    """The pairs of a step: distinct identities, `tracklets` of each drawn with replacement."""
    rng = stream(seed, BATCHES, step)
    chosen = rng.choice(len(by_label), identities, replace=False)
    drawn = [
        [rng.choice(positions, tracklets) for positions in by_label[label]] for label in chosen
    ]
    visible, infrared = np.array(drawn).transpose(1, 0, 2).reshape(2, -1)
    return Pairs(np.repeat(chosen, tracklets), visible, infrared)

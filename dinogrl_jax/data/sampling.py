"""Which frames of a tracklet, and which tracklets of a batch: pure functions of a random stream.

Source: the frame rules of MITML, VLD, DinoGRL and BUPTCampus, DinoGRL's IdentitySampler and
BUPTCampus's RandomIdentitySampler.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from dinogrl_jax.data.tracklets import MODALITIES, Tracklet
from dinogrl_jax.interface.errors import InputError

# What a random stream is for: streams of different purposes never coincide.
BATCHES, EXAMPLES, EPOCHS, LISTS, SWEEPS = range(5)


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


TRAINING_FRAMES = {"random-per-chunk": one_per_chunk, "sorted-random": sorted_random}
TEST_CLIPS = {  # (n, frames) → indices [clips, frames]
    "first-per-chunk": lambda n, frames: first_per_chunk(n, frames)[None],
    "uniform": lambda n, frames: uniform(n, frames)[None],
    "dense": dense_clips,
}


Members = tuple[list[int], list[int]]  # positions of visible and of infrared tracklets


def members(tracklets: Sequence[Tracklet], labels: Mapping[int | str, int]) -> list[Members]:
    """The tracklets of each label."""
    found: list[Members] = [([], []) for _ in labels]
    for position, tracklet in enumerate(tracklets):
        found[labels[tracklet.identity]][MODALITIES.index(tracklet.modality)].append(position)
    return found


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
    labels = rng.choice(len(by_label), identities, replace=False)
    drawn = [[rng.choice(own, tracklets) for own in by_label[label]] for label in labels]
    visible, infrared = np.array(drawn).transpose(1, 0, 2).reshape(2, -1)
    return Pairs(np.repeat(labels, tracklets), visible, infrared)


def fixed_pairs(
    by_label: Sequence[Members], identities: int, tracklets: int, seed: int
) -> Int[np.ndarray, "batches 3 b"]:
    """Batches of a list that is drawn once: labels, visible and infrared tracklets of each.

    Twice `identities` distinct ones are drawn for every two batches, and `tracklets` of each with
    replacement, until there are about as many pairs as tracklets in the modality that has fewer. Of
    so few people that there are not twice as many, every batch is drawn by itself.

    Source: IdentitySampler of the released X-ReID, which has 8 identities × 2, and its loader,
    which takes half of them for a batch and never draws anew.
    """
    rng = stream(seed, LISTS, 0)
    at_once = 2 if 2 * identities <= len(by_label) else 1
    fewest = min(sum(len(own[m]) for own in by_label) for m in range(len(MODALITIES)))
    draws = max(fewest // (at_once * identities * tracklets), 1)
    batches = []
    for _ in range(draws):
        labels = rng.choice(len(by_label), at_once * identities, replace=False)
        drawn = [[rng.choice(own, tracklets) for own in by_label[label]] for label in labels]
        both = np.array(drawn).transpose(1, 0, 2).reshape(2, at_once, -1)
        labels = np.repeat(labels, tracklets).reshape(1, at_once, -1)
        batches.append(np.concatenate([labels, both]).swapaxes(0, 1))
    return np.concatenate(batches)


def recurring_pairs(batches: Int[np.ndarray, "batches 3 b"], step: int) -> Pairs:
    """The pairs of a step, of batches that come round and round."""
    return Pairs(*batches[step % len(batches)])


def drawn_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order in which n tracklets come in the pass before an epoch."""
    return stream(seed, SWEEPS, epoch * (n + 1)).permutation(n).tolist()


def drawn_frames(
    rule: Callable, n: int, seed: int, epoch: int, position: int, count: int, frames: int
) -> Int[np.ndarray, " {frames}"]:
    """The frames of one of n tracklets in the pass before an epoch, by a rule of training frames.

    position: of the tracklet, which has `count` frames.
    """
    return rule(count, frames, stream(seed, SWEEPS, epoch * (n + 1) + 1 + position))


def listed_pairs(pairs: Pairs, rows: Int[np.ndarray, "steps b"], step: int) -> Pairs:
    """The pairs of a step whose places among all are listed."""
    return Pairs(*(column[rows[step]] for column in pairs))


def aligned_pairs(tracklets: Sequence[Tracklet], labels: Mapping[int | str, int]) -> Pairs:
    """All pairs of tracklets that were filmed at once, in the order of their numbers."""
    positions: dict[int, dict[str, int]] = {}
    for position, tracklet in enumerate(tracklets):
        if tracklet.pair >= 0:
            positions.setdefault(tracklet.pair, {})[tracklet.modality] = position
    both = [found for _, found in sorted(positions.items()) if len(found) == len(MODALITIES)]
    visible, infrared = (np.array([found[m] for found in both], int) for m in MODALITIES)
    return Pairs(np.array([labels[tracklets[i].identity] for i in visible], int), visible, infrared)


def camera_pairs(
    pairs: Pairs,
    camera: Int[np.ndarray, " n"],
    identities: int,
    cameras: int,
    seed: int,
    steps: int,
) -> Int[np.ndarray, "{steps} b"]:
    """Indices into `pairs` for each of the first steps, by identity; `camera` is of each pair.

    An epoch draws distinct identities, and of each one pair in each of some distinct cameras. A
    pair comes at most once, and identities with fewer cameras left than that no longer take part;
    once fewer than `identities` do, the next epoch begins, with everything again.
    """
    batches: list[Int[np.ndarray, " b"]] = []
    epoch = 0
    while len(batches) < steps:
        rng = stream(seed, EPOCHS, epoch)
        more = camera_pairs_epoch(pairs.labels, camera, identities, cameras, rng)
        if not more:
            raise InputError(
                f"fewer than data.identities_per_batch = {identities} identities have aligned "
                f"pairs in data.tracklets_per_identity = {cameras} cameras: lower them, or set "
                "data.batch_rule to identity"
            )
        batches += more
        epoch += 1
    return np.array(batches[:steps], int).reshape(steps, identities * cameras)


def camera_pairs_epoch(
    labels: Int[np.ndarray, " n"],
    camera: Int[np.ndarray, " n"],
    identities: int,
    cameras: int,
    rng: np.random.Generator,
) -> list[Int[np.ndarray, " b"]]:
    """The batches of one epoch, until it is exhausted."""
    _, label = np.unique(labels, return_inverse=True)
    _, place = np.unique(camera, return_inverse=True)
    shuffled = np.lexsort([rng.random(len(label)), place, label])
    left = np.zeros((label.max(initial=-1) + 1, place.max(initial=-1) + 1), int)
    np.add.at(left, (label, place), 1)
    start = (np.cumsum(left) - left.ravel()).reshape(left.shape)
    batches = []
    while True:
        ready = np.flatnonzero((left > 0).sum(1) >= cameras)
        if len(ready) < identities:
            return batches
        rows = rng.choice(ready, identities, replace=False)[:, None]
        order = rng.random((identities, left.shape[1]))
        order[left[rows[:, 0]] == 0] = 2  # behind all that have something left
        columns = np.argsort(order)[:, :cameras]
        left[rows, columns] -= 1
        batches.append(shuffled[start[rows, columns] + left[rows, columns]].ravel())

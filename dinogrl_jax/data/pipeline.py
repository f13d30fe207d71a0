"""Iterators over batches, made by grain's threads or processes; no other module uses grain.

A batch depends on the settings and its index only. So a run resumes at any step with nothing but
the step, and neither the number of workers nor that of hosts changes what is in a batch.
"""

import contextlib
import functools
import logging
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax.data import sampling, shared_memory, transforms
from dinogrl_jax.data.batches import (
    Batch,
    EvaluationBatch,
    EvaluationRecipe,
    TrainingRecipe,
    process_rows,
)
from dinogrl_jax.data.parallel import follow_parent
from dinogrl_jax.data.tracklets import MODALITIES, Tracklet, check, check_training
from dinogrl_jax.interface.errors import InputError, lookup

Recipe = TrainingRecipe | EvaluationRecipe
THREADS = 2  # that make batches in the training process, where no worker does
BATCHES_IN_FLIGHT = 4  # of a worker: in the making, in two queues, in the parent's hands

KILLED = "Worker process was terminated unexpectedly"  # grain's words
OUT_OF_MEMORY = (
    "a process of data.workers was killed, as it happens where memory is short: lower data.workers "
    "or data.identities_per_batch"
)

logger = logging.getLogger(__name__)


class BadBatch(InputError):
    """A batch cannot be made; whoever wanted it can keep what it has so far."""


class Batches(Iterator, contextlib.AbstractContextManager):
    """An iterator over a recipe's batches, in order; `with` or `close` ends its workers.

    `replaced` counts the frames that could not be read so far, each of which is warned of once.

    Args:
        recipe: makes the batch of an index.
        indices: which batches; their number is the iterator's length.
        workers: processes that make them; 0 makes them in threads of this process.
    """

    def __init__(self, recipe: Recipe, indices: Sequence[int], workers: int) -> None:
        self.recipe, self.indices, self.length = recipe, indices, len(indices)
        self.shape = recipe.frames_shape
        self.replaced: Counter[str] = Counter()
        self.folder, name = None, ""
        if workers := min(workers, self.length):
            files = min(BATCHES_IN_FLIGHT * workers, self.length)
            self.folder = shared_memory.shared_folder(files, 4 * math.prod(self.shape))
            name = str(self.folder.path)
        dataset = grain.MapDataset.source(indices).map(functools.partial(made_batch, recipe, name))
        if workers:
            dataset = in_processes(dataset, workers, name)
        else:
            dataset = dataset.to_iter_dataset(grain.ReadOptions(THREADS, THREADS))
        self.iterator = iter(dataset)

    def __len__(self) -> int:
        return self.length

    def __next__(self) -> Batch | EvaluationBatch:
        try:
            batch = next(self.iterator)
        except BaseException as error:  # the end, bad input, Ctrl-C
            self.close()
            if isinstance(error, InputError):
                raise BadBatch(str(error)) from error
            if isinstance(error, RuntimeError) and KILLED in str(error):
                raise BadBatch(OUT_OF_MEMORY) from error
            raise
        for frame in batch.replaced:
            self.replaced[frame] += 1
            if self.replaced[frame] == 1:
                logger.warning("%s cannot be read: a neighbour stands in for it", frame)
        if not self.folder:
            return batch
        return batch._replace(frames=shared_memory.received_frames(batch.frames, self.shape))

    def close(self) -> None:
        if hasattr(self.iterator, "close"):
            self.iterator.close()
        self.iterator = iter(())  # grain's iterators complain if they live on at exit
        if self.folder:
            self.folder.cleanup()

    def __exit__(self, *_) -> None:
        self.close()


def training_batches(
    tracklets: Sequence[Tracklet],
    labels: Mapping[int | str, int],
    config: ConfigDict,
    *,
    start_step: int = 0,
    steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """The augmented batches of `steps` steps, `start_step` the first.

    Args:
        tracklets: the training set.
        labels: the label of each of its identities, as `tracklets.labels` makes them.
        config: its `data`, `augment` and `seed` are used.
        process_index, process_count: this process gets its contiguous share of every batch.

    Raises:
        InputError: at once if the set cannot fill a batch; from `next` for an unreadable image.
    """
    data = config.data
    identities, each = data.identities_per_batch, data.tracklets_per_identity
    check_training(tracklets, identities)
    if config.seed < 0:
        raise InputError(f"seed = {config.seed}: it has to be 0 or more")
    pairs_rule = lookup(BATCH_RULES, data.batch_rule, "data.batch_rule")
    last = start_step + steps
    recipe = TrainingRecipe(
        tracklets=tracklets,
        pairs=pairs_rule(tracklets, labels, identities, each, config.seed, last),
        aligned=pairs_rule is camera_pairs_rule,
        frame_rule=lookup(sampling.TRAINING_FRAMES, data.training_frames, "data.training_frames"),
        own=process_rows(identities * each, process_index, process_count),
        shape=(data.frames, data.height, data.width),
        augment=transforms.Augment(**config.get("augment", {})),
        seed=config.seed,
        replace=lookup(BAD_FRAMES, data.bad_frames, "data.bad_frames"),
        upright=data.exif_rotation,
        deep_range=tuple(data.deep_range),
    )
    return Batches(recipe, range(start_step, last), data.workers)


# Batch rules: from the arguments of `sampling.identity_pairs` and the number of steps, the pairs of
# a step as a function, which other processes get.


def identity_rule(tracklets, labels, identities, each, seed, _) -> Callable:
    members = sampling.members(tracklets, labels)
    return functools.partial(sampling.identity_pairs, members, identities, each, seed)


def camera_pairs_rule(tracklets, labels, identities, each, seed, steps) -> Callable:
    pairs = sampling.aligned_pairs(tracklets, labels)
    camera = np.array([tracklets[position].camera for position in pairs.visible], int)
    rows = sampling.camera_pairs(pairs, camera, identities, each, seed, steps)
    return functools.partial(sampling.listed_pairs, pairs, rows)


def fixed_identity_rule(tracklets, labels, identities, each, seed, _) -> Callable:
    members = sampling.members(tracklets, labels)
    batches = sampling.fixed_pairs(members, identities, each, seed)
    return functools.partial(sampling.recurring_pairs, batches)


BATCH_RULES = {
    "identity": identity_rule,
    "fixed-identity": fixed_identity_rule,
    "camera-pairs": camera_pairs_rule,
}
BAD_FRAMES = {"stop": False, "neighbour": True}  # whether to replace


def evaluation_batches(
    tracklets: Sequence[Tracklet], config: ConfigDict, **share: int | bool | Sequence[int]
) -> Batches:
    """Every tracklet as it is: the visible ones in order, then the infrared ones.

    Each is one clip, or with `data.test_frames` = "dense" as many as hold all its frames.

    Args:
        tracklets: the test set, or a modality of it.
        config: its `data` and `evaluation.tracklets_per_batch` are used.
        share: `multiple`, of which the size of a batch has to be one (it is rounded up);
            `process_index` and `process_count`, whose contiguous share of every batch this is;
            `wanted`, the numbers of batches where not all are; `replace` and `skip`, what is done
            about unreadable frames, as `EvaluationRecipe` has it.

    Raises:
        InputError: at once if there is no tracklet; from `next` for an unreadable image.
    """
    check(tracklets, "test")
    size, rule = config.evaluation.tracklets_per_batch, config.data.test_frames
    return one_by_one(tracklets, config.data, rule, size, **share)


def sweep_batches(
    tracklets: Sequence[Tracklet],
    labels: Mapping[int | str, int],
    config: ConfigDict,
    size: int,
    epoch: int | None = None,
    **share: int,
) -> Batches:
    """Every training tracklet once, as one clip that is not augmented: visible ones first.

    Frames are chosen as in a test; where that takes all of them ("dense"), the first of each chunk.
    With the number of an epoch they are drawn for it as in training, and so is the tracklets' order
    within their modality.

    labels: the label of each identity. size: of a batch; `config.data` and `config.seed` are used,
    and `share` as by `evaluation_batches`.

    Raises InputError at once if there is no tracklet; from `next` for an unreadable image.
    """
    check(tracklets, "training")
    data = config.data
    rule = "first-per-chunk" if data.test_frames == "dense" else data.test_frames
    replace = lookup(BAD_FRAMES, data.bad_frames, "data.bad_frames")
    options = {"labels": labels, "replace": replace}
    if epoch is not None:
        rule, n = "first-per-chunk", len(tracklets)  # one clip of each
        training = lookup(sampling.TRAINING_FRAMES, data.training_frames, "data.training_frames")
        drawn = functools.partial(sampling.drawn_frames, training, n, config.seed, epoch)
        options |= {"drawn_frames": drawn, "order": sampling.drawn_order(n, config.seed, epoch)}
    return one_by_one(tracklets, data, rule, size, **share, **options)


def one_by_one(
    tracklets: Sequence[Tracklet],
    data: ConfigDict,
    rule: str,
    size: int,
    *,
    multiple: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    wanted: Sequence[int] | None = None,
    order: Sequence[int] = (),
    **options: Any,
) -> Batches:
    """The batches of all clips of tracklets by a rule of test frames, visible ones first.

    order: of the tracklets' positions within a modality; their own without. options: further
    fields of `EvaluationRecipe`.
    """
    size = -(-size // multiple) * multiple
    rows = clips_of_batches(tracklets, data, rule, size, order)
    own = process_rows(size, process_index, process_count)
    shape = data.frames, data.height, data.width
    options |= {"upright": data.exif_rotation, "deep_range": tuple(data.deep_range)}
    recipe = EvaluationRecipe(tracklets, rows, rule, size, own, shape, **options)
    return Batches(recipe, range(len(rows)) if wanted is None else wanted, data.workers)


def clips_of_batches(
    tracklets: Sequence[Tracklet],
    data: ConfigDict,
    rule: str,
    size: int,
    order: Sequence[int] = (),
) -> list[list[tuple[int, int]]]:
    """Of each batch its clips: positions of tracklets, and numbers; arguments as `one_by_one`."""
    clip_rule = lookup(sampling.TEST_CLIPS, rule, "data.test_frames")
    rows = []
    for modality in MODALITIES:
        clips = [
            (position, number)
            for position in order or range(len(tracklets))
            if tracklets[position].modality == modality
            for number in range(len(clip_rule(len(tracklets[position].frames), data.frames)))
        ]
        rows += [clips[i : i + size] for i in range(0, len(clips), size)]
    return rows


def made_batch(recipe: Recipe, folder: str, index: int) -> Batch | EvaluationBatch:
    """A batch; where there is a folder, with the name of a file in place of its frames."""
    if not folder:
        return recipe(index, np.empty(recipe.frames_shape, np.float32))
    path, frames = shared_memory.writable_frames(folder, str(index), recipe.frames_shape)
    return recipe(index, frames)._replace(frames=path)


def in_processes(dataset: grain.MapDataset, workers: int, folder: str) -> grain.IterDataset:
    """The dataset in worker processes, in the same order; `folder` is theirs."""
    if not flags.FLAGS.is_parsed():  # grain's workers read flags, also where absl.app runs nothing
        flags.FLAGS.mark_as_parsed()
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    unshared = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, unshared)
    options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=1)
    return dataset.mp_prefetch(options, functools.partial(follow_parent_of, folder))


def follow_parent_of(folder: str, *_) -> None:
    """Set a worker up to end with its parent, after which the folder of its batches is removed."""
    follow_parent(functools.partial(shutil.rmtree, folder, ignore_errors=True))

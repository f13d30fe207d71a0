"""Descriptors of tracklets, and the figures that they reach."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.data.batches import EvaluationBatch
from dinogrl_jax.data.pipeline import clips_of_batches, evaluation_batches
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import hosts, sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.ops import forms
from dinogrl_jax.ops.chunks import map_in_chunks
from dinogrl_jax.retrieval import protocols, scoring
from dinogrl_jax.retrieval.tables import DIRECTIONS, FIGURES

TRACKLETS_AT_ONCE = 1  # on processors, of each device


def make_embed(method: ModuleType, model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(variables, clips of one modality) → descriptors [b, p, d], jitted over the mesh."""
    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)

    def embed(variables: Mapping, clips: Clips) -> Float[Array, "b p d"]:
        variables = jax.lax.with_sharding_constraint(variables, whole)

        def descriptors(clips: Clips) -> Array:
            return method.descriptor(model.apply(variables, clips, train=False), config)

        with forms.configured(config, sharding.platform(mesh)):
            return map_in_chunks(descriptors, clips, TRACKLETS_AT_ONCE)

    return jax.jit(
        embed,
        in_shardings=(None, split),
        out_shardings=split,
        compiler_options=compiler_options(sharding.platform(mesh)),
    )


class EmbeddedBatch(NamedTuple):
    """The descriptors of a batch of clips, and what could not be read of it."""

    values: Float[np.ndarray, "b p d"]  # float32
    positions: Int[np.ndarray, " b"]  # of their tracklets; one may have several clips
    replaced: tuple[str, ...] = ()  # unreadable frames, each of which a neighbour stands in for
    unreadable: tuple[tuple[int, str], ...] = ()  # positions that are not above, and the reasons


def embeddings(
    embed: Callable,
    variables: Mapping,
    tracklets: Sequence[Tracklet],
    config: ConfigDict,
    mesh: Mesh,
    between: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "n p d"]:
    """The descriptor of every tracklet, in their order; frames are sampled as at test time.

    That of a tracklet of several clips is their mean.

    embed: what `make_embed` returns. between: called after each batch; it may raise, to stop.
    Shows its progress.

    Raises InputError for descriptors that are not finite.
    """
    with contextlib.closing(embedded_batches(embed, variables, tracklets, config, mesh)) as made:
        return mean_descriptors(made, tracklets, between)


def embedded_batches(
    embed: Callable,
    variables: Mapping,
    tracklets: Sequence[Tracklet],
    config: ConfigDict,
    mesh: Mesh,
    **options: bool | Sequence[int],
) -> Iterator[EmbeddedBatch]:
    """The batches of all clips, in order, on every process whole; shows its progress.

    What could not be read is said of this process's share.

    options: `wanted`, `replace` and `skip` of `evaluation_batches`; other arguments as
    `embeddings`.
    """
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    with evaluation_batches(tracklets, config, multiple=mesh.size, **share, **options) as batches:
        clips = sum(len(batches.recipe.rows[number]) for number in batches.indices)
        with Progress("embedding", clips, "clips") as progress:
            on_device = (
                (
                    (embed(variables, placed_clips(b, mesh)), b.positions, b.valid),
                    (b.replaced, b.unreadable),
                )
                for b in batches
            )
            # in pairs: the next has been started, the device never waits for the host
            for (made, unread), _ in itertools.pairwise(itertools.chain(on_device, [None])):
                values, positions, valid = map(hosts.gathered, made)
                values, positions = values[valid].astype(np.float32), positions[valid]
                yield EmbeddedBatch(values, positions, *unread)
                progress.add(len(positions))


def batch_count(tracklets: Sequence[Tracklet], config: ConfigDict, mesh: Mesh) -> int:
    """How many batches `embedded_batches` makes of all clips."""
    size = -(-config.evaluation.tracklets_per_batch // mesh.size) * mesh.size
    return len(clips_of_batches(tracklets, config.data, config.data.test_frames, size))


def mean_descriptors(
    batches: Iterable[EmbeddedBatch],
    tracklets: Sequence[Tracklet],
    between: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "n p d"]:
    """The mean descriptor of each tracklet's clips; 0 where there is none.

    between: as `embeddings` has it. Raises InputError for descriptors that are not finite.
    """
    result, clips = None, np.zeros(len(tracklets), np.float32)
    for values, positions, *_ in batches:
        if result is None:
            result = np.zeros((len(tracklets), *values.shape[1:]), np.float32)
        np.add.at(result, positions, values)  # a tracklet may be several clips
        np.add.at(clips, positions, 1)
        between()
    wrong = np.flatnonzero(~np.isfinite(result).all(axis=(1, 2)))
    if wrong.size:
        raise InputError(
            f"the descriptors of {wrong.size} of {len(tracklets)} tracklets are not finite, that "
            f"of {tracklets[wrong[0]]} first: the model's weights are not, or its frames too bright"
        )
    return result / np.maximum(clips, 1)[:, None, None]


def placed_clips(batch: EvaluationBatch, mesh: Mesh) -> Clips:
    """The clips of a batch of one modality, on the devices."""
    frames, cameras = sharding.placed((batch.frames, batch.cameras[:, None]), mesh)
    return Clips(frames, cameras, (batch.modality,))


def label_columns(tracklets: Sequence[Tracklet]) -> dict[str, np.ndarray]:
    """identity, camera, modality and role of tracklets, as `scoring.evaluation_of` takes them."""
    names = ("identity", "camera", "modality", "role")
    return {name: np.array([getattr(t, name) for t in tracklets]) for name in names}


def configured_evaluation(
    embedding: Float[np.ndarray, "n p d"], tracklets: Sequence[Tracklet], config: ConfigDict
) -> scoring.Evaluation:
    """`scoring.evaluation_of` by the protocol and the distance of the configuration."""
    options = configured_options(config)
    return scoring.evaluation_of(embedding, label_columns(tracklets), options)


def configured_options(config: ConfigDict) -> scoring.ScoringOptions:
    """How the configuration scores descriptors."""
    e = config.evaluation
    filtered = protocols.filters_cameras(e.protocol, e.camera_filter)
    return scoring.ScoringOptions(e.protocol, filtered, e.distance)


def best_figure(figures: Mapping[str, Mapping], name: str) -> float:
    """The figure by which the best checkpoint is chosen.

    name: `evaluation.best`. Raises InputError as `direction_and_figure`, and where the test set has
    no queries in that direction.
    """
    direction, figure = direction_and_figure(name)
    if direction == "mean":
        return float(np.mean([row[figure] for row in figures.values()]))
    if direction not in figures:
        raise InputError(f"evaluation.best = {name!r}: the test set has no queries of that kind")
    return float(figures[direction][figure])


def direction_and_figure(name: str) -> tuple[str, str]:
    """What a setting like "mean.mAP" names; InputError for words that are not there."""
    direction, _, figure = name.partition(".")
    words = ("mean", *DIRECTIONS)
    if direction not in words or figure not in FIGURES:
        raise InputError(
            f"evaluation.best = {name!r}: it has to be one of {', '.join(words)}, a dot, and one "
            f"of {', '.join(FIGURES)}"
        )
    return direction, figure


def halved_tracklets(tracklets: Sequence[Tracklet]) -> tuple[list[Tracklet], list[Tracklet]]:
    """The tracklets with the first half of their frames, and with the second.

    A middle frame belongs to both.
    """
    first = [t._replace(frames=t.frames[: (len(t.frames) + 1) // 2]) for t in tracklets]
    return first, [t._replace(frames=t.frames[len(t.frames) // 2 :]) for t in tracklets]


def extraction_config(
    config: ConfigDict, tracklets: int, devices: int, batch: int | None, workers: int | None
) -> ConfigDict:
    """A model's configuration with the batch and the workers to embed some tracklets.

    The batch is no larger than there are tracklets, and a multiple of the devices.

    Raises InputError for a batch below 1 or workers below 0.
    """
    if (batch is not None and batch < 1) or (workers is not None and workers < 0):
        raise InputError("--batch has to be 1 or more, --workers 0 or more")
    config = config.copy_and_resolve_references()
    size = min(batch or config.evaluation.tracklets_per_batch, tracklets)
    config.evaluation.tracklets_per_batch = -(-size // devices) * devices
    if workers is not None:
        config.data.workers = workers
    elif tracklets <= size:  # one batch is made before a worker has started
        config.data.workers = 0
    return config

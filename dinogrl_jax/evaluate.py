"""Embed tracklets; score queries against a gallery."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from dinogrl_jax import checkpoint, hosts, protocols, sharding, summary
from dinogrl_jax.compiling import compiler_options
from dinogrl_jax.data.pipeline import evaluation_batches
from dinogrl_jax.data.tracklets import Tracklet, queries_and_gallery
from dinogrl_jax.methods import METHODS
from dinogrl_jax.progress import Progress
from dinogrl_jax.train import initial_variables


def make_embed(model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(variables, frames [b, 1, t, h, w, 3], modality) → descriptors [b, p, d], jitted."""
    method = METHODS[config.method]

    def embed(variables: dict, frames: Array, modality: str) -> Float[Array, "b p d"]:
        variables = jax.lax.with_sharding_constraint(variables, whole)
        return method.descriptor(model.apply(variables, frames, (modality,), train=False))

    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    return jax.jit(
        embed,
        static_argnums=2,
        in_shardings=(None, split),
        out_shardings=split,
        compiler_options=compiler_options(),
    )


def loaded(
    manager: ocp.CheckpointManager, step: int, mesh: Mesh
) -> tuple[nn.Module, dict, checkpoint.Metadata]:
    """The model of a checkpoint, its variables on the mesh, and what it says about itself."""
    metadata = checkpoint.saved_metadata(manager, step)
    config = metadata.config
    model = METHODS[config.method].Model(config.model, len(metadata.identities))
    whole = sharding.replicated(mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(lambda: initial_variables(model, config)),
    )
    return model, checkpoint.restored(manager, step, variables=shapes)["variables"], metadata


def embeddings(
    embed: Callable,
    variables: dict,
    tracklets: Sequence[Tracklet],
    config: ConfigDict,
    mesh: Mesh,
) -> Float[np.ndarray, "n p d"]:
    """The descriptor of every tracklet, in their order; frames are sampled as at test time.

    That of a tracklet of several clips is their mean.

    embed: what `make_embed` returns. Shows its progress.
    """
    result, clips = None, np.zeros(len(tracklets), np.float32)
    with (
        evaluation_batches(
            tracklets,
            config,
            multiple=mesh.size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches,
        Progress("embedding", batches.clips, "clips") as progress,
    ):
        on_device = (
            (embed(variables, sharding.placed(b.frames, mesh), b.modality), b.positions, b.valid)
            for b in batches
        )
        for made in one_ahead(on_device):
            values, positions, valid = map(hosts.gathered, made)
            values, positions = values[valid].astype(np.float32), positions[valid]
            if result is None:
                result = np.zeros((len(tracklets), *values.shape[1:]), np.float32)
            np.add.at(result, positions, values)  # a tracklet may be several clips
            np.add.at(clips, positions, 1)
            progress.add(len(positions))
    return result / clips[:, None, None]


def one_ahead(items: Iterable) -> Iterator:
    """The items, each only when the next has been started: the device never waits for the host."""
    items = iter(items)
    current = next(items)
    for following in items:
        yield current
        current = following
    yield current


def figures(
    embedding: Float[np.ndarray, "n p d"], tracklets: Sequence[Tracklet], config: ConfigDict
) -> dict[str, dict]:
    """The retrieval figures of both directions, as fractions of 1, by the configured protocol.

    Keys of a direction: rank1, rank5, rank10, rank20, mAP, mINP, queries, gallery, chance_rank1.
    """
    columns = {
        name: np.array([getattr(t, name) for t in tracklets])
        for name in ("identity", "camera", "modality", "role")
    }
    rule = config.evaluation.protocol, config.evaluation.camera_filter
    results = protocols.score(
        embedding, **columns, protocol=rule[0], camera_filter=protocols.filters_cameras(*rule)
    )
    return {
        direction: {
            **{f"rank{k}": float(result.cmc[k - 1]) for k in (1, 5, 10, 20)},
            "mAP": result.mAP,
            "mINP": result.mINP,
            "queries": result.queries,
            "gallery": result.gallery,
            "chance_rank1": chance_rank1(tracklets, direction.split("_")[0], config),
        }
        for direction, result in results.items()
    }


def mean_mAP(figures: dict[str, dict]) -> float:
    """The mean of both directions' mAP, by which the best checkpoint is chosen."""
    return float(np.mean([row["mAP"] for row in figures.values()]))


def chance_rank1(tracklets: Sequence[Tracklet], query_modality: str, config: ConfigDict) -> float:
    """The rank-1 that a random order of the gallery is expected to reach."""
    evaluation = config.evaluation
    filtered = protocols.filters_cameras(evaluation.protocol, evaluation.camera_filter)
    queries, gallery = queries_and_gallery(tracklets, query_modality)
    of_identity = Counter(tracklets[i].identity for i in gallery)
    of_both = Counter((tracklets[i].identity, tracklets[i].camera) for i in gallery)
    chances = []
    for i in queries:
        identity, camera = tracklets[i].identity, tracklets[i].camera
        junk = of_both[identity, camera] if filtered else 0
        if matches := of_identity[identity] - junk:
            chances.append(matches / (len(gallery) - junk))
    return float(np.mean(chances))


def maps_picture(
    model: nn.Module, variables: dict, tracklets: Sequence[Tracklet], config: ConfigDict
) -> UInt8[np.ndarray, "h w 3"]:
    """Frames of the first tracklet of each modality and the maps that the gait stream sees.

    Only for a method whose output has `maps`.
    """
    first = [next(t for t in tracklets if t.modality == m) for m in ("visible", "infrared")]
    with evaluation_batches(first, config) as batches:
        frames = np.concatenate([b.frames[:1] for b in batches])

    @jax.jit
    def maps(variables: dict, frames: Array):
        return model.apply(variables, frames, ("visible",), train=False).maps

    shown = jax.device_get(maps(variables, frames))
    flat = frames.reshape(-1, *frames.shape[3:])
    return summary.maps_picture(flat, shown.foreground, shown.denoising, shown.appearance)

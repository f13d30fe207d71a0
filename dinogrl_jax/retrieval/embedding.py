"""Embed tracklets; score queries against a gallery."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.pipeline import evaluation_batches
from dinogrl_jax.data.tracklets import MODALITIES, Tracklet
from dinogrl_jax.devices import hosts, sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.methods import METHODS
from dinogrl_jax.ops.layers import in_turns
from dinogrl_jax.retrieval import protocols, scoring
from dinogrl_jax.training import checkpoint, summary
from dinogrl_jax.weights import pretrained

TRACKLETS_AT_ONCE = 1  # on processors, of each device


def make_embed(model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(variables, frames [b, 1, t, h, w, 3], modality) → descriptors [b, p, d], jitted."""
    method = METHODS[config.method]

    def embed(variables: dict, frames: Array, modality: str) -> Float[Array, "b p d"]:
        variables = jax.lax.with_sharding_constraint(variables, whole)

        def described(frames: Array) -> Array:
            return method.descriptor(model.apply(variables, frames, (modality,), train=False))

        if sharding.platform(mesh) != "cpu":
            return described(frames)
        return in_turns(described, frames, at_once=TRACKLETS_AT_ONCE)

    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    return jax.jit(
        embed,
        static_argnums=2,
        in_shardings=(None, split),
        out_shardings=split,
        compiler_options=compiler_options(sharding.platform(mesh)),
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
        pretrained.variable_shapes(model, config),
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


def columns(tracklets: Sequence[Tracklet]) -> dict[str, np.ndarray]:
    """identity, camera, modality and role of the tracklets, as `scoring.evaluation_of` takes them."""
    names = ("identity", "camera", "modality", "role")
    return {name: np.array([getattr(t, name) for t in tracklets]) for name in names}


def figures(
    embedding: Float[np.ndarray, "n p d"], tracklets: Sequence[Tracklet], config: ConfigDict
) -> dict[str, dict]:
    """`scoring.direction_figures` of both directions by the configured protocol."""
    rule = config.evaluation.protocol, config.evaluation.camera_filter
    method = scoring.ScoringOptions(rule[0], protocols.filters_cameras(*rule))
    return scoring.direction_figures(scoring.evaluation_of(embedding, columns(tracklets), method))


def halves(tracklets: Sequence[Tracklet]) -> tuple[list[Tracklet], list[Tracklet]]:
    """The tracklets with the first half of their frames, and with the second.

    A middle frame belongs to both.
    """
    middle = [(len(t.frames) // 2, -(-len(t.frames) // 2)) for t in tracklets]
    first = [t._replace(frames=t.frames[:up]) for t, (_, up) in zip(tracklets, middle, strict=True)]
    return first, [
        t._replace(frames=t.frames[down:]) for t, (down, _) in zip(tracklets, middle, strict=True)
    ]


def mean_mAP(figures: dict[str, dict]) -> float:
    """The mean of both directions' mAP, by which the best checkpoint is chosen."""
    return float(np.mean([row["mAP"] for row in figures.values()]))


def make_maps(model: nn.Module) -> Callable:
    """(variables, frames [b, 1, t, h, w, 3], modality) → (foreground, denoising, appearance) maps.

    Jitted; each [b, t, …]. Only for a method whose output has `maps`.
    """

    def maps(variables: dict, frames: Array, modality: str) -> list[Array]:
        made = model.apply(variables, frames, (modality,), train=False).maps
        shown = made.foreground, made.denoising, made.appearance
        return [x.reshape(*frames.shape[:3:2], *x.shape[1:]) for x in shown]

    return jax.jit(maps, static_argnums=2, compiler_options=compiler_options())


def maps_picture(
    maps: Callable, variables: dict, tracklets: Sequence[Tracklet], config: ConfigDict
) -> UInt8[np.ndarray, "h w 3"]:
    """`maps_pictures` of the first tracklet of each modality, side by side."""
    first = [next(t for t in tracklets if t.modality == m) for m in MODALITIES]
    return np.concatenate(maps_pictures(maps, variables, first, config), axis=1)


def maps_pictures(
    maps: Callable, variables: dict, tracklets: Sequence[Tracklet], config: ConfigDict
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The frames of each tracklet and what `make_maps` sees in them, in the same colours."""
    shown = [()] * len(tracklets)
    with evaluation_batches(tracklets, config) as batches:
        for batch in batches:
            made = map(np.asarray, maps(variables, batch.frames, batch.modality))
            clips = zip(batch.frames[:, 0], *made, strict=True)
            for position, clip in zip(batch.positions[batch.valid], clips, strict=False):
                shown[position] = clip
    picture = summary.maps_picture(*(np.concatenate(x) for x in zip(*shown, strict=True)))
    return np.split(picture, len(tracklets), axis=1)

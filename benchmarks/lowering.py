"""The step and the embedding of tracklets, lowered for devices that are not here."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.training import train


def step_arguments(model: nn.Module, config: ConfigDict) -> tuple:
    """The shapes of (state, frames, labels) of a training step."""
    d = config.data
    pairs = d.identities_per_batch * d.tracklets_per_identity
    frames = jax.ShapeDtypeStruct((pairs, 2, d.frames, d.height, d.width, 3), jnp.float32)
    return train.state_shapes(model, config), frames, jax.ShapeDtypeStruct((pairs,), jnp.int32)


def embed_arguments(model: nn.Module, config: ConfigDict) -> tuple:
    """The shapes of (variables, frames) of a batch of visible tracklets, for descriptors."""
    state, frames, _ = step_arguments(model, config)
    count = config.evaluation.tracklets_per_batch
    return state.variables, jax.ShapeDtypeStruct((count, 1, *frames.shape[2:]), frames.dtype)


def exported_step(
    model: nn.Module, config: ConfigDict, mesh: Mesh, platform: str
) -> export.Exported:
    """The training step for a platform, e.g. "cuda", on as many devices as the mesh has."""
    step = train.make_step(model, config, mesh)
    return export.export(step, platforms=[platform])(*step_arguments(model, config))


def exported_embed(
    model: nn.Module, config: ConfigDict, mesh: Mesh, platform: str
) -> export.Exported:
    """The same of `evaluate.make_embed`, for a batch of visible tracklets."""
    embed = make_embed(model, config, mesh)
    return export.export(embed, platforms=[platform])(*embed_arguments(model, config), "visible")

"""The training step and the extraction of descriptors, lowered for devices that are not here."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.devices import sharding
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.training.state import state_shapes
from dinogrl_jax.training.step import make_step


def clip_shapes(config: ConfigDict, count: int, modalities: tuple[str, ...]) -> Clips:
    """The shapes of `count` clips of each modality."""
    d, m = config.data, len(modalities)
    frames = jax.ShapeDtypeStruct((count, m, d.frames, d.height, d.width, 3), jnp.float32)
    return Clips(frames, jax.ShapeDtypeStruct((count, m), jnp.int32), modalities)


def step_shapes(method: ModuleType, model: nn.Module, config: ConfigDict) -> tuple:
    """The shapes of (state, clips, labels) of a training step."""
    pairs = config.data.identities_per_batch * config.data.tracklets_per_identity
    clips = clip_shapes(config, pairs, MODALITIES)
    labels = jax.ShapeDtypeStruct((pairs,), jnp.int32)
    return state_shapes(method, model, config), clips, labels


def embed_shapes(model: nn.Module, config: ConfigDict) -> tuple:
    """The shapes of (variables, clips) of a batch of visible tracklets, for descriptors."""
    clips = clip_shapes(config, config.evaluation.tracklets_per_batch, MODALITIES[:1])
    return variable_shapes(model, config), clips


def exported_step(
    method: ModuleType, model: nn.Module, config: ConfigDict, mesh: Mesh, platform: str
) -> export.Exported:
    """The training step for a platform, "gpu" say, on as many devices as the mesh has."""
    with standing_for(platform):
        step = make_step(method, model, config, mesh)
        return exported(step, step_shapes(method, model, config), platform)


def exported_embed(
    method: ModuleType, model: nn.Module, config: ConfigDict, mesh: Mesh, platform: str
) -> export.Exported:
    """The same of `make_embed`, for a batch of visible tracklets."""
    with standing_for(platform):
        embed = make_embed(method, model, config, mesh)
        return exported(embed, embed_shapes(model, config), platform)


def exported(function: Callable, shapes: tuple, platform: str) -> export.Exported:
    """A jitted function for a platform; NVIDIA's GPUs are "cuda" to JAX."""
    return export.export(function, platforms=["cuda" if platform == "gpu" else platform])(*shapes)


def standing_for(platform: str) -> AbstractContextManager:
    """Inside, any mesh is taken for one of that platform, whose forms of operations are traced."""
    return mock.patch.object(sharding, "platform", lambda _: platform)

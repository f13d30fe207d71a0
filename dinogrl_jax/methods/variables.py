"""A model's variables before any weights come into it: their shapes, and random ones."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.ops import forms


def example_clips(config: ConfigDict) -> Clips:
    """What a model is initialised on: a pair of clips of one grey frame, of unknown cameras."""
    d = config.data
    frames = jnp.zeros((1, 2, 1, d.height, d.width, 3), jnp.float32)
    return Clips(frames, jnp.full((1, 2), -1, jnp.int32))


def initial_variables(model: nn.Module, config: ConfigDict) -> dict:
    """Random parameters, neutral statistics and empty memories; a function of `config.seed`."""
    init = jax.jit(partial(model.init, train=False), compiler_options=compiler_options(once=True))
    with forms.configured(config):
        return init(jax.random.key(config.seed), example_clips(config))


def variable_shapes(model: nn.Module, config: ConfigDict) -> dict:
    """The shapes and types of a model's variables, by collection; nothing is computed."""
    clips = jax.eval_shape(partial(example_clips, config))
    with forms.configured(config):
        return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), clips)

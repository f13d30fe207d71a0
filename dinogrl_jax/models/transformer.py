"""Attention and MLP of vision and text transformers."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models import layers
from dinogrl_jax.ops.activations import gelu
from dinogrl_jax.ops.attention import attention

Dense = partial(layers.Dense, kernel_init=nn.initializers.lecun_normal())


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values are made side by side by one layer."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        f, n, c = x.shape
        qkv = Dense(3 * c, self.dtype, name="qkv")(x)
        q, k, v = jnp.split(qkv.reshape(f, n, 3 * self.heads, c // self.heads), 3, axis=2)
        return Dense(c, self.dtype, name="proj")(attention(q, k, v).reshape(f, n, c))


class MLP(nn.Module):
    """Two linear layers around an exact GELU."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        y = gelu(Dense(self.hidden, self.dtype, name="fc1")(x))
        return Dense(x.shape[-1], self.dtype, name="fc2")(y)


class SwiGLU(nn.Module):
    """Two linear layers around a gate; the width is two thirds of `hidden`, rounded up to 8."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        width = (int(self.hidden * 2 / 3) + 7) // 8 * 8
        gate, value = jnp.split(Dense(2 * width, self.dtype, name="w12")(x), 2, axis=-1)
        return Dense(x.shape[-1], self.dtype, name="w3")(nn.silu(gate) * value)

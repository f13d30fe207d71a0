"""What vision and text transformers are made of: patches, attention, MLP."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models import layers
from dinogrl_jax.ops.activations import gelu
from dinogrl_jax.ops.attention import attention

Dense = partial(layers.Dense, kernel_init=nn.initializers.lecun_normal())


class PatchEmbedding(nn.Module):
    """One linear layer for every patch: a convolution without padding.

    stride: pixels from a patch to the next; 0 is the patch's size.
    """

    features: int
    patch: int
    dtype: jnp.dtype
    stride: int = 0
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"]) -> Float[Array, "f n d"]:
        p, c = self.patch, x.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (p, p, c, self.features)).astype(self.dtype)
        y = patches(x, p, self.stride or p) @ kernel.reshape(p * p * c, self.features)
        if self.has_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values are made side by side by one layer.

    causal: a token sees itself and those before it.
    """

    heads: int
    dtype: jnp.dtype
    causal: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        f, n, c = x.shape
        qkv = Dense(3 * c, self.dtype, name="qkv")(x)
        q, k, v = jnp.split(qkv.reshape(f, n, 3 * self.heads, c // self.heads), 3, axis=2)
        y = attention(q, k, v, self.causal)
        return Dense(c, self.dtype, name="proj")(y.reshape(f, n, c))


class MLP(nn.Module):
    """Two linear layers around an activation."""

    hidden: int
    dtype: jnp.dtype
    activation: Callable[[Array], Array] = gelu

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        y = self.activation(Dense(self.hidden, self.dtype, name="fc1")(x))
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


def patches(x: Float[Array, "f h w c"], size: int, stride: int) -> Float[Array, "f n d"]:
    """Square patches row by row, each flattened as (row, column, channel).

    Pixels to the right of the last whole patch and below it are left out.
    """
    f, h, w, c = x.shape
    rows, columns = patch_grid(h, w, size, stride)
    if stride == size:  # a reshape, where indices would be looked up one by one
        x = x[:, : rows * size, : columns * size].reshape(f, rows, size, columns, size, c)
        x = x.swapaxes(2, 3)
    else:
        own = jnp.arange(size)
        row = (stride * jnp.arange(rows)[:, None] + own)[:, None, :, None]
        column = (stride * jnp.arange(columns)[:, None] + own)[None, :, None, :]
        x = x[:, row, column]
    return x.reshape(f, rows * columns, size * size * c)


def patch_grid(height: int, width: int, size: int, stride: int) -> tuple[int, int]:
    """How many rows and columns of whole patches a picture has; all in pixels."""
    return (height - size) // stride + 1, (width - size) // stride + 1

"""Bands of a feature map, and the layers that each of them has for itself."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models.layers import BatchNorm
from dinogrl_jax.ops.convolution import maximum_over
from dinogrl_jax.ops.precision import accumulation_dtype


class PartLinear(nn.Module):
    """One linear layer without bias for each part."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "v p c"]) -> Float[Array, "v p d"]:
        shape = (x.shape[1], x.shape[2], self.features)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(batch_axis=0), shape)
        return jnp.einsum("vpc,pcd->vpd", x.astype(self.dtype), kernel.astype(self.dtype))


class PartClassifier(nn.Module):
    """BatchNorm neck over all parts together, then a cosine classifier for each part.

    Source: BNNecks (SeparateBNNecks of OpenGait); the neck's features are channel-major.
    """

    identities: int

    @nn.compact
    def __call__(self, x: Float[Array, "v p d"], *, train: bool) -> Float[Array, "v p ids"]:
        v, p, d = x.shape
        x = x.astype(accumulation_dtype(x.dtype))
        neck = BatchNorm(d * p, name="neck")(x.swapaxes(1, 2).reshape(v, d * p), train=train)
        neck = l2_normalised(neck.reshape(v, d, p).swapaxes(1, 2), axis=2)
        init = nn.initializers.xavier_uniform(batch_axis=0)
        kernel = self.param("kernel", init, (p, d, self.identities))
        return jnp.einsum("vpd,pdi->vpi", neck, l2_normalised(kernel, axis=1))


def l2_normalised(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """x divided by its Euclidean norm along the axis; norms below 1e-12 count as 1e-12."""
    square = jnp.square(x).sum(axis, keepdims=True)
    safe = jnp.where(square > 0, square, 1.0)  # the root's derivative at zero is infinite
    norm = jnp.where(square > 0, jnp.sqrt(safe), 0.0)
    return x / jnp.maximum(norm, 1e-12)


def horizontal_pyramid(x: Float[Array, "v h w c"], parts: Sequence[int]) -> Float[Array, "v p c"]:
    """Mean + maximum over each of n equal bands of rows, for each n of parts, top to bottom.

    The number of rows must be a multiple of every n.
    """
    v, h, w, c = x.shape
    pooled = []
    for n in parts:
        bands = x.reshape(v, n, h // n * w, c)
        mean = bands.mean(2, dtype=accumulation_dtype(x.dtype))
        pooled.append(mean + maximum_over(bands, 2))
    return jnp.concatenate(pooled, axis=1).astype(x.dtype)

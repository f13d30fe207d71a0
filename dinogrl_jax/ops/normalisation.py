"""Normalisations of LayerNorm and BatchNorm, and the moments that they take."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.barrier import barrier
from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.remat import MOMENTS, checkpoint_name


@operation
def layer_norm(x: Float[Array, "*n c"], epsilon: float) -> Float[Array, "*n c"]:
    """(x − mean)/√(variance + ε) over the channels of a position; x is float32 or wider."""
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + epsilon)


@layer_norm.form("gpu")
def layer_norm_in_one_pass(x: Array, epsilon: float) -> Array:
    """Both sums in one pass, beside the first channel: E[x²] − E[x]² alone loses digits.

    They are apart, since XLA's kernel of a whole LayerNorm takes a GPU three times as long.
    """
    origin = x[..., :1]
    mean = (x - origin).mean(-1, keepdims=True)
    var = jnp.square(x - origin).mean(-1, keepdims=True) - jnp.square(mean)
    mean, var = jax.lax.optimization_barrier((origin + mean, jnp.maximum(var, 0)))
    return (x - mean) * jax.lax.rsqrt(var + epsilon)


class Moments(NamedTuple):
    """Mean and biased variance of each channel, of `count` selected positions."""

    mean: Float[Array, " c"]
    var: Float[Array, " c"]
    count: Float[Array, ""]


@operation
def mean_over_positions(x: Float[Array, "*n c"]) -> Float[Array, " c"]:
    """The mean of each channel, as a mean of means, one axis after the other.

    XLA on a CPU adds up number by number: a sum over several axes loses two digits, and takes ten
    times as long.
    """
    while x.ndim > 1:
        x = x.mean(-2)
    return x


@mean_over_positions.form("gpu", "tpu")
def mean_over_positions_at_once(x: Array) -> Array:
    """These add up in trees."""
    return x.mean(range(x.ndim - 1))


def moments(x: Float[Array, "*n c"], mask: Bool[Array, "*n"] | None = None) -> Moments:
    """Moments of the positions that the mask selects, of all without one; of none they are zero.

    They equal those of the gathered positions, at a static shape.
    """
    x = x.astype(accumulation_dtype(x.dtype))
    if mask is None:
        weight, count = jnp.ones((), x.dtype), jnp.asarray(x.size // x.shape[-1], x.dtype)
    else:
        weight = mask[..., None].astype(x.dtype)
        count = weight.sum()
    share = (x.size // x.shape[-1]) / jnp.maximum(count, 1)
    mean = mean_over_positions(weight * x) * share
    var = mean_over_positions(weight * jnp.square(x - mean)) * share
    return Moments(mean, var, count)


@operation
def batch_norm(
    x: Float[Array, "*n c"],
    mask: Bool[Array, "*n"] | None,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> tuple[Float[Array, "*n c"], Moments]:
    """scale·(x − mean)/√(variance + ε) + bias by the moments of what the mask selects; and these.

    Rematerialisation keeps the moments.
    """
    found = checkpoint_name(moments(x, mask), MOMENTS)
    y = (x.astype(found.mean.dtype) - found.mean) * (
        jax.lax.rsqrt(found.var + epsilon) * scale
    ) + bias
    return y.astype(x.dtype), jax.lax.stop_gradient(found)


def _has_channels(x: Array, *_) -> bool:
    # PBMGE's single one varies so little about its mean that this gradient would lose digits.
    return x.shape[-1] > 1


@batch_norm.form(when=_has_channels)
@partial(jax.custom_vjp, nondiff_argnums=(4,))
def batch_norm_with_gradient(
    x: Array, mask: Array | None, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Moments]:
    """The gradient, written out, reads x and y's gradient twice, and keeps nothing but x."""
    return _batch_norm_forward(x, mask, scale, bias, epsilon)[0]


def _batch_norm_forward(x, mask, scale, bias, epsilon: float) -> tuple[tuple, tuple]:
    found = checkpoint_name(moments(x, mask), MOMENTS)
    factor = jax.lax.rsqrt(found.var + epsilon)
    y = ((x.astype(factor.dtype) - found.mean) * (factor * scale) + bias).astype(x.dtype)
    return (y, found), (x, mask, scale, factor, found)


def _batch_norm_backward(epsilon: float, kept: tuple, gradient: tuple) -> tuple:
    x, mask, scale, factor, found = kept
    count = x.size // x.shape[-1]
    g, wide = gradient[0].astype(factor.dtype), x.astype(factor.dtype)
    # The mean anew, or a CPU would have x − mean in memory for the sum and for what comes after.
    distance = wide - barrier(found.mean)
    of_bias = count * mean_over_positions(g)
    of_scale = count * mean_over_positions(g * distance) * factor
    share = 1 / jnp.maximum(found.count, 1)
    if mask is not None:
        share = share * mask[..., None]
    normal = (wide - found.mean) * factor
    of_x = (g - share * (of_bias + normal * of_scale)) * (factor * scale)
    no_mask = None if mask is None else np.zeros(mask.shape, jax.dtypes.float0)
    return of_x.astype(x.dtype), no_mask, of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


batch_norm_with_gradient.defvjp(_batch_norm_forward, _batch_norm_backward)

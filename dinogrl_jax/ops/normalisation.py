"""LayerNorm and BatchNorm: their moments, their gradients, and a product normalised without it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.layers import accumulation_dtype


class LayerNorm(nn.Module):
    """Normalisation of every position over its channels; its sums at least in float32.

    Source: torch.nn.LayerNorm, epsilon 1e-6 as in DINOv2.
    """

    dtype: jnp.dtype
    affine: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        wide = x.astype(accumulation_dtype(self.dtype))
        mean, var = jax.lax.platform_dependent(wide, cpu=_row_moments, default=_row_moments_at_once)
        factor = jax.lax.rsqrt(var + self.epsilon)
        if not self.affine:
            return ((wide - mean) * factor).astype(self.dtype)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return ((wide - mean) * (factor * scale) + bias).astype(self.dtype)


def _row_moments(x: Array) -> tuple[Array, Array]:
    mean = x.mean(-1, keepdims=True)
    return mean, jnp.square(x - mean).mean(-1, keepdims=True)


def _row_moments_at_once(x: Array) -> tuple[Array, Array]:
    origin = x[..., :1]
    mean = (x - origin).mean(-1, keepdims=True)
    var = jnp.square(x - origin).mean(-1, keepdims=True) - jnp.square(mean)
    # Apart, since XLA's kernel of a whole LayerNorm takes a GPU 3 times as long.
    return jax.lax.optimization_barrier((origin + mean, jnp.maximum(var, 0)))


class Moments(NamedTuple):
    """Per-channel mean and biased variance of `count` selected positions."""

    mean: Float[Array, " c"]
    var: Float[Array, " c"]
    count: Float[Array, ""]


def moments(x: Float[Array, "*n c"], mask: Bool[Array, "*n"] | None = None) -> Moments:
    """Moments of the positions that the mask selects (of all without one).

    Equal to gathering the selected positions first, at a static shape. Nothing selected gives
    zeros.
    """
    x = x.astype(accumulation_dtype(x.dtype))
    weight = jnp.ones((), x.dtype) if mask is None else mask[..., None].astype(x.dtype)
    total = jnp.asarray(x.size // x.shape[-1], x.dtype) if mask is None else weight.sum()
    mean, var = jax.lax.platform_dependent(
        x, weight, total, cpu=_in_two_passes, default=_in_one_pass
    )
    return checkpoint_name(Moments(mean, var, total), "moments")


def _in_two_passes(x: Array, weight: Array, total: Array) -> tuple[Array, Array]:
    axes, count = tuple(range(x.ndim - 1)), jnp.maximum(total, 1)
    mean = (weight * x).sum(axes) / count
    return mean, (weight * jnp.square(x - mean)).sum(axes) / count


def _in_one_pass(x: Array, weight: Array, total: Array) -> tuple[Array, Array]:
    """Beside some position: E[x²] − E[x]² loses the variance where the mean is far from zero."""
    axes, count = tuple(range(x.ndim - 1)), jnp.maximum(total, 1)
    origin = x[(0,) * len(axes)]
    near = weight * (x - origin)
    mean, square = (total / count for total in sums(axes, near, near * (x - origin)))
    return jnp.where(total > 0, origin + mean, 0), jnp.maximum(square - jnp.square(mean), 0)


def sums(axes: tuple[int, ...], x: Array, y: Array) -> tuple[Array, Array]:
    """x.sum(axes), y.sum(axes); at once, which a GPU begins and ends half as many times for."""
    ways = {"cuda": partial(_sums_at_once, axes)}
    return jax.lax.platform_dependent(
        x, y, **ways, default=lambda *both: tuple(z.sum(axes) for z in both)
    )


def _sums_at_once(axes: tuple[int, ...], x: Array, y: Array) -> tuple[Array, Array]:
    def added(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] + b[0], a[1] + b[1]

    zero = jnp.zeros((), x.dtype)
    return tuple(jax.lax.reduce((x, y), (zero, zero), added, axes))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def batch_normalised(
    x: Float[Array, "*n c"],
    mask: Bool[Array, "*n"] | None,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> tuple[Float[Array, "*n c"], Moments]:
    """x by the moments of what the mask selects, times scale, plus bias; and the moments.

    The gradient, written out, reads x and y's gradient twice; the moments have none.
    """
    return _normalised(x, mask, scale, bias, epsilon)[0]


def _normalised(x, mask, scale, bias, epsilon: float) -> tuple[tuple, tuple]:
    found = moments(x, mask)
    factor = jax.lax.rsqrt(found.var + epsilon)
    y = ((x.astype(factor.dtype) - found.mean) * (factor * scale) + bias).astype(x.dtype)
    return (y, found), (x, mask, scale, factor, found)


def _normalised_backward(epsilon: float, kept: tuple, gradient: tuple) -> tuple:
    x, mask, scale, factor, found = kept
    axes = tuple(range(x.ndim - 1))
    g = gradient[0].astype(factor.dtype)
    x_wide = x.astype(factor.dtype)
    # The mean anew, or a CPU would have x − mean in memory for the sum and for what comes after.
    distance = x_wide - jax.lax.optimization_barrier(found.mean)
    of_bias, of_distance = sums(axes, g, g * distance)
    of_scale = of_distance * factor
    share = 1 / jnp.maximum(found.count, 1)
    if mask is not None:
        share = share * mask[..., None]
    normal = (x_wide - found.mean) * factor
    of_x = (g - share * (of_bias + normal * of_scale)) * (factor * scale)
    no_mask = None if mask is None else np.zeros(mask.shape, jax.dtypes.float0)
    return of_x.astype(x.dtype), no_mask, of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


batch_normalised.defvjp(_normalised, _normalised_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def product_normalised(
    x: Float[Array, "*n c"],
    kernel: Float[Array, "c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    epsilon: float,
) -> tuple[Float[Array, "*n d"], Moments]:
    """`batch_normalised(x @ kernel, None, scale, bias, epsilon)` that never has x @ kernel.

    The moments of a product follow from the mean and the covariance of x, so that the kernel takes
    the normalisation before it multiplies; the gradient needs xᵀ·x, xᵀ·g and the sum of g, the
    result's gradient, alone. Worth it where few channels c become many d, and in half precision:
    the covariance loses digits where the mean is far from zero.
    """
    return _product_normalised(x, kernel, scale, bias, epsilon)[0]


def _exactly(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _summed_products(x: Float[Array, "n c"], y: Float[Array, "n d"]) -> Float[Array, "c d"]:
    over_rows = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(x, y, over_rows, preferred_element_type=accumulation_dtype(x.dtype))


def _product_normalised(x, kernel, scale, bias, epsilon: float) -> tuple[tuple, tuple]:
    rows = x.reshape(-1, x.shape[-1])
    count = jnp.asarray(len(rows), accumulation_dtype(x.dtype))
    mean = rows.astype(count.dtype).mean(0)
    covariance = _summed_products(rows, rows) / count - jnp.outer(mean, mean)
    spread = _exactly(covariance, kernel)
    var = jnp.maximum((kernel * spread).sum(0), 0)
    found = checkpoint_name(Moments(_exactly(mean, kernel), var, count), "moments")
    factor = jax.lax.rsqrt(found.var + epsilon)
    given = (kernel * (factor * scale)).astype(x.dtype)
    shift = bias - _exactly(mean, given.astype(mean.dtype))  # what rounding the kernel adds, too
    y = (rows @ given + shift.astype(x.dtype)).reshape(*x.shape[:-1], -1)
    return (y, found), (x, kernel, scale, factor, found, mean, spread)


def _product_normalised_backward(epsilon: float, kept: tuple, gradient: tuple) -> tuple:
    x, kernel, scale, factor, found, mean, spread = kept
    rows = x.reshape(-1, x.shape[-1])
    g = gradient[0].reshape(len(rows), -1)
    cross = _summed_products(rows, g)
    of_bias = g.astype(factor.dtype).sum(0)
    of_scale = ((kernel * cross).sum(0) - found.mean * of_bias) * factor
    whole = factor * scale
    of_kernel = (cross - jnp.outer(mean, of_bias) - spread * (factor * of_scale)) * whole
    share = whole * factor * of_scale / found.count
    of_result = (kernel * whole).astype(x.dtype).T
    of_moments = _exactly(-share * kernel, kernel.T).astype(x.dtype)
    # The mean is 0, whatever rounding did to the two matrices. Sums, no difference: cuBLAS ends
    # its products with those.
    constant = _exactly(-of_bias / found.count, of_result.astype(mean.dtype))
    constant = constant - _exactly(mean, of_moments.astype(mean.dtype))
    of_x = g @ of_result + (rows @ of_moments + constant.astype(x.dtype))
    return of_x.reshape(x.shape), of_kernel, of_scale, of_bias


product_normalised.defvjp(_product_normalised, _product_normalised_backward)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    Normalises with the biased variance and keeps the unbiased one, n/(n − 1) times it. In training
    the statistics are those of the global batch under `jax.jit`, of the positions that the mask
    selects; `given` replaces them where the caller computes them without materialising the input.
    A batch with fewer than two positions leaves the running statistics as they are.

    Source: torch.nn.BatchNorm1d/2d, momentum 0.1.
    """

    affine: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*n c"],
        *,
        train: bool,
        mask: Bool[Array, "*n"] | None = None,
        given: Moments | None = None,
        kernel: Float[Array, "c d"] | None = None,
    ) -> Float[Array, "*n d"]:
        """kernel: what x is multiplied by first, see `product_normalised`; for training."""
        dtype = accumulation_dtype(x.dtype)
        channels = x.shape[-1] if kernel is None else kernel.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale, bias = jnp.ones(channels, dtype), jnp.zeros(channels, dtype)
        if self.affine:
            scale = self.param("scale", self.scale_init, (channels,))
            bias = self.param("bias", nn.initializers.zeros, (channels,))
        if kernel is not None:
            y, found = product_normalised(x, kernel, scale, bias, self.epsilon)
        elif train and given is None:
            y, found = batch_normalised(x, mask, scale, bias, self.epsilon)
        else:
            found = given or Moments(running_mean.value, running_var.value, jnp.zeros(()))
            factor = jax.lax.rsqrt(found.var + self.epsilon) * scale
            y = ((x.astype(factor.dtype) - found.mean) * factor + bias).astype(x.dtype)
        if train and not self.is_initializing():
            self._update(running_mean, running_var, found)
        return y

    def factor_and_shift(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """What evaluation multiplies by, and what it adds then."""
        mean, var = (self.get_variable("batch_stats", name) for name in ("mean", "var"))
        factor = jax.lax.rsqrt(var + self.epsilon)
        if not self.affine:
            return factor, -mean * factor
        factor = factor * self.get_variable("params", "scale")
        return factor, self.get_variable("params", "bias") - mean * factor

    def _update(self, running_mean: nn.Variable, running_var: nn.Variable, batch: Moments) -> None:
        batch = jax.lax.stop_gradient(batch)
        unbiased = batch.var * batch.count / jnp.maximum(batch.count - 1, 1)
        rate = jnp.where(batch.count > 1, self.momentum, 0.0).astype(unbiased.dtype)
        for running, new in ((running_mean, batch.mean), (running_var, unbiased)):
            running.value = ((1 - rate) * running.value + rate * new).astype(running.value.dtype)

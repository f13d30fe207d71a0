"""Convolutions, and maxima of positions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.matmul import matmul


@operation
def convolution(
    x: Float[Array, "f h w c"], kernel: Float[Array, "k k c d"], stride: int
) -> Float[Array, "f h2 w2 d"]:
    """x convolved with a kernel of odd size, zero beyond the border: at stride 1 as large as x."""
    pad = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _of_one_position(_: Array, kernel: Array, __: int) -> bool:
    return kernel.shape[:2] == (1, 1)


@convolution.form("cpu", when=_of_one_position)
def convolution_by_matmul(x: Array, kernel: Array, stride: int) -> Array:
    """One product of matrices, whose gradient a CPU computes in half the time or less."""
    x = x[:, ::stride, ::stride]
    y = matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], -1)


@operation
def affine_convolution(
    x: Float[Array, "f h w c"],
    kernel: Float[Array, "k k c d"],
    stride: int,
    factor: Float[Array, " d"],
    shift: Float[Array, " d"],
) -> Float[Array, "f h2 w2 d"]:
    """factor·convolution(x, kernel) + shift, as BatchNorm does with running statistics."""
    y = convolution(x, kernel.astype(x.dtype), stride)
    return (y * factor + shift).astype(x.dtype)


@affine_convolution.form("gpu")
def affine_convolution_in_kernel(
    x: Array, kernel: Array, stride: int, factor: Array, shift: Array
) -> Array:
    """The kernel takes the factor, and a GPU's convolution ends with the shift and a ReLU."""
    return convolution(x, (kernel * factor).astype(x.dtype), stride) + shift.astype(x.dtype)


@operation
def max_pool(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """Maximum of 3×3 positions at every second row and column, −∞ beyond the border."""
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


@max_pool.form("cpu")
@jax.custom_vjp
def max_pool_to_the_first(x: Array) -> Array:
    """The gradient goes to the first maximum of a window, row by row.

    The derivative of `reduce_window` keeps eight index arrays of x's size on a CPU: half a GiB at
    the peak of a step of 48 frames.
    """
    return jnp.stack(_windows(x)).max(0)


def _windows(x: Float[Array, "f h w c"]) -> list[Float[Array, "f h2 w2 c"]]:
    """The nine positions of each window, row by row."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return [x[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]


def _max_pool_backward(x: Array, g: Array) -> tuple[Array]:
    _, h, w, _ = x.shape
    first = jnp.argmax(jnp.stack(_windows(x)), axis=0)
    own = [[jnp.where(first == 3 * i + j, g, 0) for j in range(3)] for i in range(3)]
    rows = [_summed_windows(column, axis=1) for column in zip(*own, strict=True)]
    return (_summed_windows(rows, axis=2)[:, :h, :w],)


def _summed_windows(thirds: Sequence[Array], axis: int) -> Array:
    """Sums at every position, of the first, second and third positions of windows.

    The first one of a window is the last one of the window before it.
    """
    first, second, third = thirds
    ends = [(0, 0, 0)] * first.ndim
    ends[axis] = (-1, 1, 0)
    pair = second, third + jax.lax.pad(first, jnp.zeros((), first.dtype), ends)
    x = jnp.stack(pair, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


max_pool_to_the_first.defvjp(lambda x: (max_pool_to_the_first(x), x), _max_pool_backward)


def maximum_over(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """x.max(axis), whose gradient goes to the first of the largest.

    The gradient of jnp.max goes to what equals the maximum. A compiler may compute x once for the
    maximum and again for that comparison, with other rounding: then nothing is equal, and the
    gradient is lost, as a tenth of a step's was. A place is not lost.

    Source: torch.max along a dimension.
    """
    first = jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=bool)
    return jnp.where(first, x, 0).sum(axis)

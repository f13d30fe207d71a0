"""Convolutions; on processors, wide ones of 3×3 positions with fewer multiplications.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016: F(2×2, 3×3).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEWEST = 128  # channels; with 64 the sums around the products cost what these save


def convolved(x: Float[Array, "f h w c"], kernel: Float[Array, "k k c d"], stride: int) -> Array:
    """x convolved with a kernel of odd size, beyond the border 0: at stride 1 as large as x."""
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    exact = x.dtype != jnp.bfloat16
    if exact and even and stride == 1 and kernel.shape[0] == 3 and min(kernel.shape[2:]) >= FEWEST:
        return with_fewer_products(x, kernel)
    return directly(x, kernel, stride)


def directly(x: Float[Array, "f h w c"], kernel: Float[Array, "k k c d"], stride: int = 1) -> Array:
    """`convolved` by XLA's own convolution."""
    pad = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def with_fewer_products(x: Float[Array, "f h w c"], kernel: Float[Array, "3 3 c d"]) -> Array:
    """`convolved` at stride 1, height and width even; on all but CPUs `directly`."""
    return jax.lax.platform_dependent(x, kernel, cpu=_by_products, default=directly)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return with_fewer_products(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (of_kernel,) = jax.linear_transpose(lambda k: directly(x, k), kernel)(g)
    return with_fewer_products(g, kernel[::-1, ::-1].swapaxes(2, 3)), of_kernel


with_fewer_products.defvjp(_forward, _backward)


def _by_products(x: Float[Array, "f h w c"], kernel: Float[Array, "3 3 c d"]) -> Array:
    """2×2 results from 4×4 values: 16 products of channels where 36 are usual."""
    f, h, w, c = x.shape
    kernels = jnp.stack([own for row in _spread(list(kernel)) for own in _spread(list(row))])
    # Apart, or what makes x would be computed for each of the tiles that overlap, and the sums at
    # the end for each reader.
    x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    rows = _differences([x[:, i : i + h - 1 : 2] for i in range(4)])
    tiles = [_differences([row[:, :, j : j + w - 1 : 2] for j in range(4)]) for row in rows]
    tiles = jnp.stack([tile.reshape(-1, c) for row in tiles for tile in row])
    made = jnp.einsum("tnc,tcd->tnd", tiles, kernels)
    columns = zip(*(_sums(list(row)) for row in made.reshape(4, 4, *made.shape[1:])), strict=True)
    y = jnp.stack([jnp.stack(_sums(column)) for column in columns])  # [2 columns, 2 rows, n, d]
    y = y.reshape(2, 2, f, h // 2, w // 2, -1)
    return jax.lax.optimization_barrier(y.transpose(2, 3, 1, 4, 0, 5).reshape(f, h, w, -1))


def _differences(four: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    a, b, c, d = four
    return a - c, b + c, c - b, b - d


def _spread(three: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    a, b, c = three
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _sums(four: Sequence[Array]) -> tuple[Array, Array]:
    a, b, c, d = four
    return a + b + c, b - c - d

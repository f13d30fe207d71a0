"""Convolutions: on processors wide ones of 3×3 positions with fewer multiplications, elsewhere
those of the first layer by blocks of positions.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016: F(2×2, 3×3).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dinogrl_jax.ops.layers import dividing, half_precision, in_turns, product_over_rows

FEWEST = 128  # channels; with 64 the sums around the products cost what these save
AT_ONCE = 2**19  # values of each device, so that the tiles made of them stay in the cache


def convolved(x: Float[Array, "f h w c"], kernel: Float[Array, "k k c d"], stride: int) -> Array:
    """x convolved with a kernel of odd size, beyond the border 0: at stride 1 as large as x."""
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    wide = kernel.shape[0] == 3 and min(kernel.shape[2:]) >= FEWEST
    if wide and even and stride == 1 and not half_precision(x.dtype):
        return with_fewer_products(x, kernel)
    if even and stride == 2 and kernel.shape[0] == 7 and kernel.shape[2] < 8:
        ways = {"cpu": partial(directly, stride=stride), "default": by_blocks}
        return jax.lax.platform_dependent(x, kernel, **ways)
    return directly(x, kernel, stride)


def directly(x: Float[Array, "f h w c"], kernel: Float[Array, "k k c d"], stride: int = 1) -> Array:
    """`convolved` by XLA's own convolution."""
    pad = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_blocks(x: Float[Array, "f h w c"], kernel: Float[Array, "7 7 c d"]) -> Array:
    """`convolved` at stride 2, height and width even, as one of stride 1 over 2×2 positions.

    A block's positions become channels, which a GPU multiplies 16 at a time: of 3 it fills few.
    """
    f, h, w, c = x.shape
    before, more = (4, 2), (0, -4 * c % 16)  # a kernel of 8, whose first row and column are 0
    x = jnp.pad(x, ((0, 0), before, before, (0, 0)))
    x = x.reshape(f, h // 2 + 3, 2, w // 2 + 3, 2, c).swapaxes(2, 3)
    x = jnp.pad(x.reshape(f, h // 2 + 3, w // 2 + 3, 4 * c), ((0, 0), (0, 0), (0, 0), more))
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, c, -1).swapaxes(1, 2).reshape(4, 4, 4 * c, -1)
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), more, (0, 0)))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def with_fewer_products(x: Float[Array, "f h w c"], kernel: Float[Array, "3 3 c d"]) -> Array:
    """`convolved` at stride 1, height and width even; on all but CPUs `directly`."""
    return jax.lax.platform_dependent(x, kernel, cpu=_by_products, default=directly)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return with_fewer_products(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    # With several devices each turn would wait for a sum over all of them.
    of_kernel = _of_kernel_by_products if jax.device_count() == 1 else _of_kernel_directly
    return (
        with_fewer_products(g, kernel[::-1, ::-1].swapaxes(2, 3)),
        jax.lax.platform_dependent(x, g, cpu=of_kernel, default=_of_kernel_directly),
    )


with_fewer_products.defvjp(_forward, _backward)


def _by_products(x: Float[Array, "f h w c"], kernel: Float[Array, "3 3 c d"]) -> Array:
    """2×2 results from 4×4 values: 16 products of channels where 36 are usual."""
    kernels = jnp.stack([own for row in _spread(list(kernel)) for own in _spread(list(row))])
    kernels = jax.lax.optimization_barrier(kernels)  # made once, not in each turn

    def turn(x: Float[Array, "f h w c"]) -> Float[Array, "f h w d"]:
        f, h, w, _ = x.shape
        made = jnp.einsum("tnc,tcd->tnd", jnp.stack(_tiles(x)), kernels)
        rows = [_sums(list(row)) for row in made.reshape(4, 4, *made.shape[1:])]
        y = [jnp.stack(_sums(column)) for column in zip(*rows, strict=True)]
        y = jnp.stack(y)  # [2 columns, 2 rows, n, d]
        y = y.reshape(2, 2, f, h // 2, w // 2, -1)
        # Apart, or each reader would compute the sums again.
        return jax.lax.optimization_barrier(y.transpose(2, 3, 1, 4, 0, 5).reshape(f, h, w, -1))

    return in_turns(turn, x, at_once=AT_ONCE // x[0].size)


def _of_kernel_directly(x: Float[Array, "f h w c"], g: Float[Array, "f h w d"]) -> Array:
    """Of a convolution's result the gradient is g; this is that of its kernel [3, 3, c, d]."""
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: directly(x, kernel), kernel)(g)[0]


def _of_kernel_by_products(x: Float[Array, "f h w c"], g: Float[Array, "f h w d"]) -> Array:
    """The same by the transposes of the sums in `_by_products`, again with 16 products."""
    few = dividing(len(x), AT_ONCE // 2 // x[0].size)
    # Zero from when x and g are known: XLA would set aside the totals' memory far earlier.
    zero, x, g = jax.lax.optimization_barrier((jnp.zeros((), x.dtype), x, g))

    def turn(totals: list[Array], xg: tuple[Array, Array]) -> tuple[list[Array], None]:
        x, g = xg
        rows = _sums_transposed([g[:, i::2] for i in range(2)])
        gs = [own for row in rows for own in _sums_transposed([row[:, :, j::2] for j in range(2)])]
        gs = [own.reshape(-1, own.shape[-1]) for own in gs]
        # One by one: of a batch of products XLA copies both operands, transposed.
        triples = zip(totals, _tiles(x), gs, strict=True)
        return [total + product_over_rows(x, g) for total, x, g in triples], None

    totals = [jnp.full((x.shape[-1], g.shape[-1]), zero)] * 16
    turns = [y.reshape(-1, few, *y.shape[1:]) for y in (x, g)]
    totals, _ = jax.lax.scan(turn, totals, tuple(turns))
    rows = [_spread_transposed(totals[i : i + 4]) for i in range(0, 16, 4)]  # of 4, 3 columns each
    columns = [_spread_transposed(column) for column in zip(*rows, strict=True)]
    return jnp.stack([jnp.stack(column) for column in columns], axis=1)


def _tiles(x: Float[Array, "f h w c"]) -> list[Float[Array, "n c"]]:
    """16 sums of every 4×4 values that begin at an even row and column, one beyond the border."""
    _, h, w, c = x.shape
    # Apart, or what makes x would be computed for each of the tiles that overlap.
    x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    rows = _differences([x[:, i : i + h - 1 : 2] for i in range(4)])
    tiles = [_differences([row[:, :, j : j + w - 1 : 2] for j in range(4)]) for row in rows]
    return [tile.reshape(-1, c) for row in tiles for tile in row]


def _differences(four: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    a, b, c, d = four
    return a - c, b + c, c - b, b - d


def _spread(three: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    a, b, c = three
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _spread_transposed(four: Sequence[Array]) -> tuple[Array, Array, Array]:
    a, b, c, d = four
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


def _sums(four: Sequence[Array]) -> tuple[Array, Array]:
    a, b, c, d = four
    return a + b + c, b - c - d


def _sums_transposed(two: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    a, b = two
    return a, a + b, a - b, -b

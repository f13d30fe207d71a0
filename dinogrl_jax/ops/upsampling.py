"""Maps at twice their rows and columns, bilinear, and what is computed of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.barrier import barrier
from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.matmul import matmul
from dinogrl_jax.ops.normalisation import Moments, moments
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.resize import bilinear_matrix, resized


@operation
def upsample_2x(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """x at twice its rows and columns, bilinear.

    Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
    """
    return resized(x, *(bilinear_matrix(n, 2 * n, x.dtype) for n in x.shape[1:3]))


@upsample_2x.form("cpu", "gpu")
@jax.custom_vjp
def upsample_2x_by_neighbours(x: Array) -> Array:
    """From each position and three neighbours: by rows first, they would be in memory between."""
    wide = accumulation_dtype(x.dtype)
    (row, row_beside), (column, column_beside) = (_halves(n) for n in x.shape[1:3])

    def at(row: np.ndarray, column: np.ndarray) -> Float[Array, "f h2 w2 c"]:
        return x[:, row][:, :, column].astype(wide)

    near = at(row_beside, column) + at(row, column_beside)
    y = 0.5625 * at(row, column) + 0.1875 * near + 0.0625 * at(row_beside, column_beside)
    return barrier(y.astype(x.dtype))


def _halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each half of n positions, in order: the position, and the one beside this half."""
    half = np.arange(2 * n)
    return half // 2, np.clip(half // 2 + np.where(half % 2, 1, -1), 0, n - 1)


def _upsample_2x_backward(_: None, g: Float[Array, "f h2 w2 c"]) -> tuple[Float[Array, "f h w c"]]:
    x = g.astype(accumulation_dtype(g.dtype))
    for axis in (1, 2):
        n, taken = x.shape[axis], partial(jnp.take, x, axis=axis, mode="clip")
        first = np.arange(0, n, 2)
        beside = taken(first - 1) + taken(first + 2)  # at the border the own ones
        x = 0.75 * (taken(first) + taken(first + 1)) + 0.25 * beside
    return (barrier(x.astype(g.dtype)),)


upsample_2x_by_neighbours.defvjp(
    lambda x: (upsample_2x_by_neighbours(x), None), _upsample_2x_backward
)


@operation
def upsampled_moments(x: Float[Array, "f h w c"], mask: Bool[Array, "f h2 w2"]) -> Moments:
    """The moments of upsample_2x(x) where the mask selects."""
    return moments(upsample_2x(x), mask)


@upsampled_moments.form()
def upsampled_moments_by_form(x: Array, mask: Array) -> Moments:
    """Without the positions that upsampling adds.

    With U the upsampling of a frame, the selected squares of U·(x − μ) are a quadratic form whose
    matrix Uᵀ·diag(mask)·U is the same for all channels.
    """
    f, h, w, c = x.shape
    dtype = accumulation_dtype(x.dtype)
    rows, columns = (jnp.asarray(bilinear_matrix(n, 2 * n, dtype), dtype) for n in (h, w))
    weight = mask.astype(dtype)
    count = weight.sum()
    x = x.reshape(f, h * w, c)
    share = jnp.einsum("fop,oh,pw->fhw", weight, rows, columns).reshape(f, h * w)
    mean = jnp.einsum("fn,fnc->c", share, x.astype(dtype)) / jnp.maximum(count, 1)
    square_rows, square_columns = (jnp.einsum("oh,oi->ohi", m, m) for m in (rows, columns))
    form = jnp.einsum("fop,ohi->fphi", weight, square_rows)
    form = jnp.einsum("fphi,pwu->fhwiu", form, square_columns).reshape(f, h * w, h * w)
    x = (x.astype(dtype) - mean).astype(x.dtype)
    formed = jnp.einsum("fnm,fmc->fnc", form.astype(x.dtype), x, preferred_element_type=dtype)
    var = (x * formed).sum((0, 1))
    return Moments(mean, var / jnp.maximum(count, 1), count)


@operation
def upsampled_dense(
    x: Float[Array, "f h w c"],
    mean: Float[Array, " c"],
    factor: Float[Array, " c"],
    kernel: Float[Array, "c d"],
    bias: Float[Array, " d"],
) -> Float[Array, "f h2 w2 d"]:
    """A linear layer of x at twice its rows and columns, normalised: factor·(x − mean)."""
    y = (upsample_2x(x).astype(factor.dtype) - mean) * factor
    return matmul(y.astype(x.dtype), kernel) + bias


@upsampled_dense.form()
def dense_upsampled(x: Array, mean: Array, factor: Array, kernel: Array, bias: Array) -> Array:
    """Upsampling last, for it commutes with what is linear: a quarter of the positions before."""
    y = (x.astype(factor.dtype) - mean) * factor
    return upsample_2x(matmul(y.astype(x.dtype), kernel) + bias)

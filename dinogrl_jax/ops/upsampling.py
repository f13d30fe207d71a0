"""Maps at twice their rows and columns, bilinear, and what is computed of them."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.matmul import matmul
from dinogrl_jax.ops.normalisation import Moments, moments
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.resize import bilinear_matrix, resized


def upsample_2x(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """x at twice its rows and columns, bilinear.

    Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
    """
    return resized(x, *(bilinear_matrix(n, 2 * n, x.dtype) for n in x.shape[1:3]))


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

"""Image resizing as PyTorch computes it, as pairs of small matrices.

`jax.image.resize` has neither PyTorch's bicubic kernel nor its rounding of source coordinates;
with exact coordinates DINOv2's tokens differ by 2e-5 of their deviation, with these by 3e-6.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SHARP, SOFT = np.float32(-0.75), -0.5  # the cubic kernel's slope, without and with antialias


def bilinear_matrix(source: int, target: int, dtype=np.float32) -> np.ndarray:
    """Weights [target, source] of bilinear resizing: half-pixel centres, no antialias.

    Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
    """
    kind = np.promote_types(dtype, np.float32)
    position = np.maximum(_positions(target, source / target, kind), 0)
    low = np.minimum(np.floor(position).astype(int), source - 1)
    fraction = position - low.astype(position.dtype)
    matrix = np.zeros((target, source), position.dtype)
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1 - fraction)
    np.add.at(matrix, (rows, np.minimum(low + 1, source - 1)), fraction)
    return matrix


def bicubic_resized(
    x: Float[Array, "h w c"], target: tuple[int, int], scale: tuple[float, float]
) -> Float[Array, "h2 w2 c"]:
    """x (float32) at the target size, bicubic (a = −0.75), no antialias, edges repeated.

    Positions follow the scale factors, not the ratio of the sizes, as PyTorch's do when it is given
    factors. Where float64 is enabled, sums are rounded as PyTorch's compiled kernel rounds them
    (fused multiply-add, the second tap first); an ulp in a positional embedding is 1e-8 of a loss.

    Source: torch.nn.functional.interpolate(mode="bicubic", scale_factor=…).
    """
    for axis in (1, 0):
        taps, weights = bicubic_taps(x.shape[axis], target[axis], scale[axis])
        shape = (4, target[0], 1, 1) if axis == 0 else (4, 1, target[1], 1)
        x = _blended([jnp.take(x, tap, axis) for tap in taps], weights.reshape(shape))
    return x


def bicubic_taps(source: int, target: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and float32 weights, both [4, target], of bicubic resizing."""
    position = _positions(target, 1 / scale, np.float32)
    low = np.floor(position)
    t = position - low
    one = np.float32(1)
    weights = [_far(t + one), _near(t), _near(one - t), _far((one - t) + one)]
    taps = [np.clip(low.astype(int) + k, 0, source - 1) for k in (-1, 0, 1, 2)]
    return np.stack(taps), np.stack(weights)


def antialiased_bicubic_matrix(source: int, target: int) -> np.ndarray:
    """Weights [target, source], float32, of antialiased bicubic resizing (a = −0.5).

    Source: torch.nn.functional.interpolate(mode="bicubic", antialias=True).
    """
    ratio = source / target
    stretch = max(ratio, 1.0)
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = ratio * (i + 0.5)
        low = max(int(centre - 2 * stretch + 0.5), 0)
        high = min(int(centre + 2 * stretch + 0.5), source)
        distance = np.abs((np.arange(low, high) - centre + 0.5) / stretch)
        weight = np.where(distance < 1, _near(distance, SOFT), _far(distance, SOFT))
        weight = np.where(distance < 2, weight, 0)
        matrix[i, low:high] = weight / weight.sum()
    return matrix.astype(np.float32)


def resized(
    x: Float[Array, "b h w c"], rows: np.ndarray, columns: np.ndarray
) -> Float[Array, "b h2 w2 c"]:
    """x with its rows and columns mixed by the matrices [h2, h] and [w2, w]."""
    x = jnp.einsum("oh,bhwc->bowc", jnp.asarray(rows, x.dtype), x)
    return jnp.einsum("ow,bhwc->bhoc", jnp.asarray(columns, x.dtype), x)


def _positions(target: int, ratio: float, dtype) -> np.ndarray:
    """Source coordinates of the target's centres: ratio in `dtype`, then a single rounding."""
    exact = np.float64(np.dtype(dtype).type(ratio)) * (np.arange(target) + 0.5) - 0.5
    return exact.astype(dtype)


def _blended(taps: list[Array], weights: np.ndarray) -> Array:
    wide = jnp.zeros(()).dtype  # float64 where it is enabled
    total = (taps[1] * weights[1]).astype(wide)
    for k in (0, 2, 3):
        total = (taps[k].astype(wide) * weights[k] + total).astype(jnp.float32).astype(wide)
    return total.astype(jnp.float32)


def _near(x: np.ndarray, a: float | np.floating = SHARP) -> np.ndarray:
    """The cubic kernel within one source pixel."""
    return ((a + 2) * x - (a + 3)) * x * x + np.float32(1)


def _far(x: np.ndarray, a: float | np.floating = SHARP) -> np.ndarray:
    """The cubic kernel between one and two source pixels; its middle step is fused."""
    inner = (a * x - 5 * a).astype(np.float64) * x + 8 * a
    return (inner.astype(x.dtype) * x - 4 * a).astype(x.dtype)

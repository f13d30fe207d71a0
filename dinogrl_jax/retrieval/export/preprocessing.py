"""What happens to a test frame before a model sees it, in JAX: as `data.transforms` has it.

Pillow resizes in two passes and rounds to 8 bits behind each. So does this, columns first. In
float32 less than a hundredth of the values, those at the half of a step, differ by one of 255.
Pillow 13 takes rows first where pictures are tall and become smaller: then a fifth do.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from dinogrl_jax.data.transforms import OFFSET, SCALE

FIXED = 1 << 22  # of a weight's fixed point, as Pillow has it


def normalised_frames(
    frames: UInt8[Array, "t h w 3"], height: int, width: int
) -> Float32[Array, "t height width 3"]:
    """RGB pictures of any size as a model sees them; any size may be symbolic but the model's."""
    x = frames.astype(jnp.float32)
    x = rounded(jnp.einsum("xw,thwc->thxc", bilinear_weights(frames.shape[2], width), x))
    x = rounded(jnp.einsum("yh,thxc->tyxc", bilinear_weights(frames.shape[1], height), x))
    return x * SCALE + OFFSET


def bilinear_weights(size: Any, made: int) -> Float32[Array, "made size"]:
    """Of each pixel in each of `made` ones: a triangle as wide as what a made pixel stands for.

    size: a number, or a symbol for one.
    """
    scale = jnp.asarray(size, jnp.float32) / np.float32(made)
    support = jnp.maximum(scale, 1)  # in pixels, on each side of the centre
    centres = (jnp.arange(made, dtype=jnp.float32) + 0.5) * scale
    distances = jnp.arange(size).astype(jnp.float32) + 0.5 - centres[:, None]
    weights = jnp.maximum(1 - jnp.abs(distances) / support, 0)
    return jnp.rint(weights / weights.sum(axis=1, keepdims=True) * FIXED) / FIXED


def rounded(x: Array) -> Array:
    """To whole numbers, halves up, within 8 bits."""
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)

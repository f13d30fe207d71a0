"""A number of every array in a tree, which shows whether its bits are still the same."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

FACTOR = 2_654_435_769  # odd, the golden ratio's part of 2³²: neighbours weigh unlike


def fingerprints(tree: Any) -> dict[str, int]:
    """Path → Σ word · weight(place) modulo 2³² over an array's words of at most 32 bits.

    Weights are odd, so that a single changed word always shows. Whole numbers have the same sum in
    any order: neither the sharding nor the number of devices matters.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    arrays = [leaf for _, leaf in leaves]
    if all(isinstance(array, np.ndarray) for array in arrays):
        sums = [fingerprint(array, np, numpy_words) for array in arrays]
    else:
        sums = np.asarray(on_devices(arrays)).tolist()
    return {path: int(value) for path, value in zip(paths, sums, strict=True)}


@jax.jit
def on_devices(arrays: list[Array]) -> Array:
    return jnp.stack([fingerprint(array, jnp, jax_words) for array in arrays])


def fingerprint(array: Any, xp: ModuleType, words: Callable) -> Any:
    """The sum of one array; nothing is flattened, which would gather an array that is shared."""
    array = words(array)
    place = xp.zeros(array.shape, xp.uint32)
    for size, axis in zip(array.shape, range(array.ndim), strict=True):
        along = xp.arange(size, dtype=xp.uint32).reshape([-1] + [1] * (array.ndim - axis - 1))
        place = place * np.uint32(size % 2**32) + along
    return xp.sum(array * (place * np.uint32(FACTOR) | np.uint32(1)), dtype=xp.uint32)


def jax_words(array: Array) -> Array:
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32)


def numpy_words(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array).reshape(array.shape)
    size = array.dtype.itemsize
    words = array[..., None].view(np.dtype(f"u{min(size, 4)}")).astype(np.uint32)
    return words if size > 4 else words[..., 0]

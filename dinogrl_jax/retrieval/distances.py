"""Distances of descriptors: float32 for every pair, float64 for the few whose order matters.

A descriptor is [p, d], or [d], which counts as one part. An accelerator computes `block_distances`
of all pairs, the host computes `exact_distances` of chosen pairs, and `tolerance` says how far the
first may be from the second.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dinogrl_jax.interface.errors import InputError


class Operand(NamedTuple):
    """Descriptors as given, the offset to subtract from them, and their squared lengths then."""

    embedding: Float[Array, "n p d"]
    offset: Float[Array, "p d"]
    squared: Float[Array, "p n"]

    def part(self, p: int | Array) -> Float[Array, "n d"]:
        """One part of all descriptors, less the offset."""
        rows = jax.lax.dynamic_index_in_dim(self.embedding, p, axis=1, keepdims=False)
        return rows.astype(self.offset.dtype) - self.offset[p]


def _squared(aa, bb, ab):
    # |a|² + |b|² − 2ab may fall below 0 by rounding
    return (aa + bb - 2 * ab).clip(0)


def _euclidean(aa, bb, ab):
    return _squared(aa, bb, ab) ** 0.5


# (squared length, squared length, dot product) → distance, for NumPy and JAX arrays
FORMULAS: dict[str, Callable] = {
    "part_euclidean": _euclidean,  # of each part, then the mean over parts
    "euclidean": _euclidean,
    "squared_euclidean": _squared,
    "cosine": lambda aa, bb, ab: 1 - ab / (aa * bb).clip(1e-24) ** 0.5,
    "dot": lambda aa, bb, ab: -ab,
}
EUCLIDEAN = ("part_euclidean", "euclidean", "squared_euclidean")


def distance_formula(name: str) -> Callable:
    """The named entry of FORMULAS; InputError for an unknown name."""
    if name not in FORMULAS:
        raise InputError(f"distance {name!r}: choose one of {', '.join(FORMULAS)}")
    return FORMULAS[name]


def centring_offset(name: str, embedding: Float[ArrayLike, "n p d"]) -> Float[np.ndarray, "p d"]:
    """An offset to subtract from all descriptors: near their mean, or 0 if it changes distances.

    Without it, a large common offset loses the differences of descriptors to rounding.
    """
    if name not in EUCLIDEAN:
        return np.zeros(embedding.shape[1:], np.float32)
    rows = np.asarray(embedding[:: max(1, embedding.shape[0] // 256)], np.float32)
    return np.nan_to_num(rows.mean(0), posinf=0, neginf=0)


def centred_operand(
    embedding: Float[ArrayLike, "n p d"], offset: Float[ArrayLike, "p d"]
) -> Operand:
    """Descriptors and their offset, in whose dtype `block_distances` will compute."""
    embedding, offset = jnp.asarray(embedding), jnp.asarray(offset)
    return Operand(embedding, offset, _squared_lengths(embedding, offset))


@jax.jit
def _squared_lengths(embedding, offset):
    return ((embedding.astype(offset.dtype) - offset) ** 2).sum(-1).T


def block_distances(name: str, query: Operand, gallery: Operand) -> Float[Array, "q g"]:
    """Distances of every query to every gallery entry, in the dtype of the operands.

    There is one matmul for each part; three [q, g] arrays are in memory at once. The result is
    accurate to `tolerance(name, …, dtype)`.

    Source: arXiv 2511.04281 ranks by the mean over parts of Euclidean distances.
    """
    by_part, combine = name == "part_euclidean", distance_formula(name)
    parts, n = query.squared.shape
    zero = jnp.zeros((n, gallery.squared.shape[1]), query.offset.dtype)

    def add_part(p, total):
        # highest: otherwise a GPU rounds the factors to TF32 and a TPU to bfloat16
        a, b = query.part(p), gallery.part(p)
        ab = jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision="highest")
        term = combine(query.squared[p, :, None], gallery.squared[p], ab) if by_part else ab
        return total + term

    # a sum of sums over groups of parts rounds a third as much as one sum over 70 parts
    size = max(k for k in range(1, math.isqrt(parts) + 1) if parts % k == 0)

    def add_group(i, total):
        return total + jax.lax.fori_loop(i * size, (i + 1) * size, add_part, zero)

    total = jax.lax.fori_loop(0, parts // size, add_group, zero)
    if by_part:
        return total / parts
    return combine(query.squared.sum(0)[:, None], gallery.squared.sum(0)[None, :], total)


def distance_matrix(
    name: str, query: Float[ArrayLike, "q *d"], gallery: Float[ArrayLike, "g *d"]
) -> Float[Array, "q g"]:
    """The complete matrix of float32 distances, for small sets; descriptors are [p, d] or [d].

    Raises InputError for an unknown name.
    """
    query, gallery = (x if x.ndim == 3 else x[:, None] for x in (query, gallery))
    offset = centring_offset(name, query)
    return _block_distances_jitted(name, *(centred_operand(x, offset) for x in (query, gallery)))


_block_distances_jitted = jax.jit(block_distances, static_argnums=0)


@jax.jit
def descriptor_lengths(operand: Operand) -> Float[Array, " n"]:
    """The Euclidean length of each descriptor, over all its parts, less the offset."""
    return operand.squared.sum(0) ** 0.5


def exact_distances(
    name: str,
    query: Float[ArrayLike, "q p d"],
    gallery: Float[ArrayLike, "g p d"],
    offset: Float[np.ndarray, "p d"],
) -> Float[np.ndarray, "q g"]:
    """Float64 distances of every query to every gallery entry, by NumPy: for tens of them."""
    a, b = (x - offset.astype(np.float64) for x in (query, gallery))
    aa, bb = np.vecdot(a, a).T[:, :, None], np.vecdot(b, b).T[:, None, :]
    terms = aa, bb, a.transpose(1, 0, 2) @ b.transpose(1, 2, 0)
    if name == "part_euclidean":
        return distance_formula(name)(*terms).mean(0)
    return distance_formula(name)(*(x.sum(0) for x in terms))


def exact_distance(
    name: str,
    query: Float[np.ndarray, "p d"],
    gallery: Float[np.ndarray, "p d"],
    offset: Float[np.ndarray, "p d"],
) -> float:
    """The same for one pair, to rounding; faster, as two descriptors stay in a core's cache."""
    if name in EUCLIDEAN:  # the difference needs a single pass over the numbers
        difference = query.astype(np.float64)
        difference -= gallery
        squared = np.vecdot(difference, difference)
        if name == "part_euclidean":
            return float(np.sqrt(squared).mean())
        return float(squared.sum() ** (0.5 if name == "euclidean" else 1))
    return exact_distances(name, query[None], gallery[None], offset).item()


def exact_distances_by_xla(
    name: str,
    query: Float[ArrayLike, "q p d"],
    gallery: Float[ArrayLike, "g p d"],
    offset: Float[np.ndarray, "p d"],
) -> Float[np.ndarray, "q g"]:
    """The same as `exact_distances`, by XLA on the host: for a thousand of them."""
    cpu = jax.local_devices(backend="cpu")[0]  # a TPU has no float64
    with jax.enable_x64(True), jax.default_device(cpu):
        sides = (centred_operand(x, offset.astype(np.float64)) for x in (query, gallery))
        return np.asarray(_block_distances_jitted(name, *sides))


def tolerance(name: str, distance, scale, parts: int, dtype):
    """How far a distance that was computed in `dtype` may be from its true value.

    `scale` is (|a| + |b|)², from the lengths of the centred descriptors. The error of a squared
    distance or a product is a few roundings of `scale`; a square root divides it by twice the
    distance, and if the distance vanishes the root of the error remains. NumPy and JAX arrays.

    This is a model, not a proof: bounds for any input are d times larger. The largest errors
    that `tests/retrieval/test_distances.py` provokes are below a third of it.
    """
    rounding = 16 * float(np.finfo(dtype).eps)
    if name == "cosine":
        return rounding + 0 * distance
    if name == "part_euclidean":
        scale = scale / parts
    if name in ("part_euclidean", "euclidean"):
        # the second bound holds where the distance is 0
        return (rounding * scale / distance.clip(1e-30)).clip(None, (rounding * scale) ** 0.5)
    return rounding * scale + 0 * distance

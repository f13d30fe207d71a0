"""Distances of descriptors: float32 for every pair, float64 for the few whose order matters.

A descriptor is [p, d] (parts) or [d], kept as one part. `block_distances` is what an accelerator computes
for all pairs, `exact_distances` what the host computes for chosen ones, and `tolerance` says how far the
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
    """Descriptors as they come, what is subtracted from all of them, and then squared lengths."""

    embedding: Float[Array, "n p d"]
    offset: Float[Array, "p d"]
    squared: Float[Array, "p n"]

    def part(self, p: int | Array) -> Float[Array, "n d"]:
        rows = jax.lax.dynamic_index_in_dim(self.embedding, p, axis=1, keepdims=False)
        return rows.astype(self.offset.dtype) - self.offset[p]


def _squared(aa, bb, ab):
    # |a|² + |b|² − 2ab may fall below 0 by rounding
    return (aa + bb - 2 * ab).clip(0)


def _euclidean(aa, bb, ab):
    return _squared(aa, bb, ab) ** 0.5


# from squared lengths and dot product to the distance; NumPy and JAX arrays alike
FORMULAS: dict[str, Callable] = {
    "part_euclidean": _euclidean,  # of each part, then the mean over parts
    "euclidean": _euclidean,
    "squared_euclidean": _squared,
    "cosine": lambda aa, bb, ab: 1 - ab / (aa * bb).clip(1e-24) ** 0.5,
    "dot": lambda aa, bb, ab: -ab,
}
EUCLIDEAN = ("part_euclidean", "euclidean", "squared_euclidean")


def distance_formula(name: str) -> Callable:
    """The named entry of FORMULAS.

    Errors: InputError for a name that is not there.
    """
    if name not in FORMULAS:
        raise InputError(f"distance {name!r}: choose one of {', '.join(FORMULAS)}")
    return FORMULAS[name]


def centring_offset(name: str, embedding: Float[ArrayLike, "n p d"]) -> Float[np.ndarray, "p d"]:
    """A vector to subtract from all descriptors: near their mean, 0 where that changes distances.

    Without it a common offset drowns their differences in rounding.
    """
    if name not in EUCLIDEAN:
        return np.zeros(embedding.shape[1:], np.float32)
    rows = np.asarray(embedding[:: max(1, embedding.shape[0] // 256)], np.float32)
    return np.nan_to_num(rows.mean(0), posinf=0, neginf=0)


def centred_operand(
    embedding: Float[ArrayLike, "n p d"], offset: Float[ArrayLike, "p d"]
) -> Operand:
    """Descriptors less an offset, in its dtype, ready for `block_distances`."""
    embedding, offset = jnp.asarray(embedding), jnp.asarray(offset)
    return Operand(embedding, offset, _squared_lengths(embedding, offset))


@jax.jit
def _squared_lengths(embedding, offset):
    return ((embedding.astype(offset.dtype) - offset) ** 2).sum(-1).T


def block_distances(name: str, query: Operand, gallery: Operand) -> Float[Array, "q g"]:
    """Distances of every query to every gallery entry in the dtype of the operands.

    One matmul per part; one [q, g] product lives beside two sums over parts. Accurate to
    `tolerance(name, …, dtype)`.

    Source: arXiv 2511.04281 ranks by the mean over parts of Euclidean distances.
    """
    apart, combine = name == "part_euclidean", distance_formula(name)
    parts, n = query.squared.shape
    zero = jnp.zeros((n, gallery.squared.shape[1]), query.offset.dtype)

    def one(p, total):
        # HIGHEST: a GPU would round the factors to TF32, a TPU to bfloat16
        a, b = query.part(p), gallery.part(p)
        ab = jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision="highest")
        term = combine(query.squared[p, :, None], gallery.squared[p], ab) if apart else ab
        return total + term

    # a sum of sums of a few parts: rounds a third as much as one sum over 70
    few = max(k for k in range(1, math.isqrt(parts) + 1) if parts % k == 0)

    def group(i, total):
        return total + jax.lax.fori_loop(i * few, (i + 1) * few, one, zero)

    total = jax.lax.fori_loop(0, parts // few, group, zero)
    if apart:
        return total / parts
    return combine(query.squared.sum(0)[:, None], gallery.squared.sum(0)[None, :], total)


def distance_matrix(
    name: str, query: Float[ArrayLike, "q *d"], gallery: Float[ArrayLike, "g *d"]
) -> Float[Array, "q g"]:
    """The whole matrix of float32 distances, for sets that are small; descriptors [p, d] or [d].

    Errors: InputError for an unknown name.
    """
    distance_formula(name)
    query, gallery = (x if x.ndim == 3 else x[:, None] for x in (query, gallery))
    offset = centring_offset(name, query)
    return _block_distances_jitted(
        name, centred_operand(query, offset), centred_operand(gallery, offset)
    )


_block_distances_jitted = jax.jit(block_distances, static_argnums=0)


@jax.jit
def descriptor_lengths(operand: Operand) -> Float[Array, " n"]:
    """The Euclidean length of whole descriptors: root of the sum over parts of squares."""
    return operand.squared.sum(0) ** 0.5


def exact_distances(
    name: str,
    query: Float[ArrayLike, "q p d"],
    gallery: Float[ArrayLike, "g p d"],
    offset: Float[np.ndarray, "p d"],
) -> Float[np.ndarray, "q g"]:
    """Float64 distances of every query to every gallery entry: for tens of them, in NumPy."""
    a, b = (x - offset.astype(np.float64) for x in (query, gallery))
    aa, bb = (np.vecdot(x, x).T for x in (a, b))
    return _combined(
        name, aa[:, :, None], bb[:, None, :], a.transpose(1, 0, 2) @ b.transpose(1, 2, 0)
    )


def exact_distance(
    name: str,
    query: Float[np.ndarray, "p d"],
    gallery: Float[np.ndarray, "p d"],
    offset: Float[np.ndarray, "p d"],
) -> float:
    """One distance of `exact_distances`, to rounding; two descriptors stay in a core's cache."""
    if name in EUCLIDEAN:  # from the difference, which needs one pass over the numbers
        apart = query.astype(np.float64)
        apart -= gallery
        squared = np.vecdot(apart, apart)
        if name == "part_euclidean":
            return float(np.sqrt(squared).mean())
        return float(squared.sum() ** (0.5 if name == "euclidean" else 1))
    a, b = (x - offset.astype(np.float64) for x in (query, gallery))
    return float(_combined(name, np.vecdot(a, a), np.vecdot(b, b), np.vecdot(a, b)))


def exact_distances_by_xla(
    name: str,
    query: Float[ArrayLike, "q p d"],
    gallery: Float[ArrayLike, "g p d"],
    offset: Float[np.ndarray, "p d"],
) -> Float[np.ndarray, "q g"]:
    """The same as `exact_distances` for a thousand of them, by XLA on the host."""
    cpu = jax.local_devices(backend="cpu")[0]  # a TPU has no float64
    with jax.enable_x64(True), jax.default_device(cpu):
        sides = (centred_operand(x, offset.astype(np.float64)) for x in (query, gallery))
        return np.asarray(_block_distances_jitted(name, *sides))


def _combined(name: str, aa, bb, ab):
    """The distance of descriptors from what their parts, the first axis, have."""
    if name == "part_euclidean":
        return distance_formula(name)(aa, bb, ab).mean(0)
    return distance_formula(name)(aa.sum(0), bb.sum(0), ab.sum(0))


def tolerance(name: str, distance, scale, parts: int, dtype):
    """How far from its true value a distance computed in `dtype` may be; NumPy and JAX alike.

    `scale` is (|a| + |b|)² of the centred descriptors' lengths. A squared distance or a product is
    off by some roundings of it; a square root divides that by twice the distance, and where the
    distance vanishes leaves the root of it.

    This is a model, not a proof: bounds for any input are d times larger. The largest
    errors that `tests/test_distances.py` provokes are below a third of it.
    """
    rounding = 16 * float(np.finfo(dtype).eps)
    if name == "cosine":
        return rounding + 0 * distance
    if name == "part_euclidean":
        scale = scale / parts
    if name in ("part_euclidean", "euclidean"):
        # a distance of 0 leaves the second
        return (rounding * scale / distance.clip(1e-30)).clip(None, (rounding * scale) ** 0.5)
    return rounding * scale + 0 * distance

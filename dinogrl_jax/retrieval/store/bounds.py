"""Lower bounds of distances that read a fourteenth of the descriptors.

Of each part, let P project orthogonally onto a few directions. A vector a of it becomes a' =
(Pa, ‖a − Pa‖), and by the triangle inequality ‖a − b‖ ≥ ‖a' − b'‖: the second is the distance that
remains if the rests of a and b, which are orthogonal to P, were parallel. So the mean over parts of
such bounds, or the root of the sum of their squares, bounds the distance of descriptors. The
leading directions of the descriptors of each part make bounds that are near to it.

What is stored of a descriptor is rounded to bfloat16, and bounds are computed in float32. They have
to hold nevertheless: `MOVED` and `slack` say what is subtracted.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Shaped, UInt16
from threadpoolctl import ThreadpoolController

# Of the channels, one in so many becomes a direction. With one in 16 bounds take half the time, but
# leave seven times as many descriptors of walkers to read.
SHARE = 8
ROWS = 3  # beside the directions: the length of the rest, and twice of the squared length of all
SAMPLE = 1024  # descriptors that the directions are fitted to, at most
AT_ONCE = 128  # descriptors that are projected at a time, in float64
IN_CACHE = 16  # descriptors that stay in a core's cache while they are compared
UNIT = 2.0**-24  # the largest relative error of one rounding to float32
STORED_UNIT = 2.0**-8  # and to bfloat16
MOVED = 1.01 * STORED_UNIT  # by so much of its stored length rounding moves a'
TINY = 1e-30  # more than what is too small for float32 makes of a squared distance
LARGEST = 1e15  # of a descriptor's length, so that its square is a number in float32

BFLOAT16 = np.dtype(jnp.bfloat16)
BOUNDED = ("part_euclidean", "euclidean", "squared_euclidean")  # of distances.FORMULAS


class Directions(NamedTuple):
    """Where descriptors are projected to."""

    offset: Float64[np.ndarray, "p d"]  # subtracted first, which changes no distance
    basis: Float64[np.ndarray, "p r d"]  # orthonormal rows

    @property
    def rows(self) -> int:
        """Numbers of a part that are stored."""
        return self.basis.shape[1] + ROWS

    def as_bytes(self) -> tuple[bytes, bytes]:
        return self.offset.tobytes(), self.basis.tobytes()

    @classmethod
    def from_bytes(cls, offset: bytes, basis: bytes, parts: int, channels: int) -> "Directions":
        both = (np.frombuffer(x, np.float64) for x in (offset, basis))
        shapes = (parts, channels), (parts, -1, channels)
        return cls(*(x.reshape(shape) for x, shape in zip(both, shapes, strict=True)))


def fitted_directions(sample: Float[np.ndarray, "n p d"]) -> Directions:
    """The leading directions of each part of some descriptors."""
    offset = sample.mean(0, dtype=np.float64)
    few = max(1, sample.shape[2] // SHARE)

    def leading(part: int) -> Float64[np.ndarray, "r d"]:
        x = sample[:, part] - offset[part].astype(np.float32)
        # any directions are right; float64 makes them orthonormal
        _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))  # ascending
        return vectors[:, ::-1][:, :few].T

    with _threads() as pool:
        basis = list(pool.map(leading, range(len(offset))))
    return Directions(offset, np.ascontiguousarray(basis))


def stored_rows(
    directions: Directions, x: Shaped[np.ndarray, "n p d"]
) -> UInt16[np.ndarray, "p rows n"]:
    """What is stored of descriptors: of each part a', and its squared length as rounding left it.

    Numbers are bfloat16: the upper halves of those of float32, which XLA widens by a shift. The
    squared length takes two, a number and what it lacks.
    """
    pieces = [x[i : i + AT_ONCE] for i in range(0, len(x), AT_ONCE)]
    with _threads() as pool:
        found = list(pool.map(partial(_stored_rows, directions), pieces))
    return np.concatenate(found, axis=2)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One for each processor, of which none starts others.

    The threads of BLAS wait for each other at each small product: beside other work on the machine
    they took minutes for what these do in seconds.
    """
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield pool


def _stored_rows(directions: Directions, x: np.ndarray) -> np.ndarray:
    a = projected(directions, x).astype(BFLOAT16)
    squared = np.square(a.astype(np.float64)).sum(1, keepdims=True)
    most = squared.astype(BFLOAT16)
    lacking = (squared - most.astype(np.float64)).astype(BFLOAT16)
    return np.concatenate([a, most, lacking], axis=1).view(np.uint16)


def projected(
    directions: Directions, x: Shaped[np.ndarray, "n p d"]
) -> Float64[np.ndarray, "p few n"]:
    """a' of each part of descriptors: Pa and ‖a − Pa‖."""
    x = np.ascontiguousarray((x - directions.offset).transpose(1, 2, 0))  # p d n
    inside = directions.basis @ x
    rest = np.sqrt((np.square(x).sum(1) - np.square(inside).sum(1)).clip(0))
    return np.concatenate([inside, rest[:, None]], axis=1)


def slack(directions: Directions) -> float:
    """What rounding may add to a squared bound of a part, as a share of |a'|² + |b'|².

    The squared distance |a'|² + |b'|² − 2 a'·b' in float32 is wrong by at most 2 (rows + 1)
    roundings of that sum, and |a'|² in two numbers by two of their roundings, one of the other.
    Storing b' moves the distance by a rounding of |b'| and, as the length of the rest is the root
    of a difference of sums of d squares in float64, both lengths move it by √(4 d 2⁻⁵³) of them;
    this moves the square by four times as much of |a'|² + |b'|². Half as much again is for safety.
    """
    moved = UNIT + (4 * directions.basis.shape[2] * 2.0**-53) ** 0.5
    return 1.5 * (2 * (directions.rows + 1) * UNIT + 2 * STORED_UNIT**2 + 4 * moved)


class QueryTerms(NamedTuple):
    """A query as its bounds take it: squared bound of a part = constant + weights · stored rows."""

    weights: Float32[np.ndarray, "p rows"]
    constant: Float32[np.ndarray, " p"]


def query_terms(directions: Directions, query: Float[np.ndarray, "p d"]) -> QueryTerms:
    """The terms of a query, less the slack."""
    b = projected(directions, query[None])[:, :, 0]
    sure = 1 - slack(directions)
    weights = np.pad(-2 * b, ((0, 0), (0, ROWS - 1)), constant_values=sure)
    constant = np.square(b).sum(1) * sure - TINY
    return QueryTerms(weights.astype(np.float32), constant.astype(np.float32))


@partial(jax.jit, static_argnames="name")
def block_bounds(
    name: str, query: QueryTerms, block: UInt16[Array, "p rows n"]
) -> Float32[Array, " n"]:
    """Lower bounds of the named distance, one of BOUNDED, of a query to a block of descriptors.

    block: as `stored_rows` makes it.
    """
    parts, rows, n = block.shape

    def add_part(p, total):
        squared = query.constant[p]
        for row in range(rows):  # one pass over the block, vectors of n numbers
            squared = squared + query.weights[p, row] * widened(block[p, row])
        length = jnp.sqrt(widened(block[p, -2]) + widened(block[p, -1]))
        bound = jnp.maximum(jnp.sqrt(jnp.maximum(squared, 0)) - MOVED * length, 0)
        return total + (bound if name == "part_euclidean" else jnp.square(bound))

    total = jax.lax.fori_loop(0, parts, add_part, jnp.zeros(n, jnp.float32))
    sure = 1 - 2 * (parts + 12) * UNIT  # of the sum, its terms, its root and the division
    if name == "part_euclidean":
        total = total / parts
    return (jnp.sqrt(total) if name == "euclidean" else total) * sure


def widened(upper: UInt16[Array, " n"]) -> Float32[Array, " n"]:
    """The float32 numbers of upper halves; XLA's own widening is ten times slower on a CPU."""
    return jax.lax.bitcast_convert_type(upper.astype(jnp.uint32) << 16, jnp.float32)


def near_distances(
    name: str, query: Float32[np.ndarray, "p d"], rows: Shaped[np.ndarray, "n p d"]
) -> Float32[np.ndarray, " n"]:
    """The named distances, one of BOUNDED, from which all that float32 may add is subtracted.

    Their terms are positive, so that the error is relative: a rounding for each of them.
    """
    _, parts, channels = rows.shape
    found = []
    for start in range(0, len(rows), IN_CACHE):
        difference = rows[start : start + IN_CACHE].astype(np.float32, copy=False) - query
        squared = np.vecdot(difference, difference)
        found.append(np.sqrt(squared).mean(1) if name == "part_euclidean" else squared.sum(1))
    total = np.concatenate(found)
    total = np.sqrt(total) if name == "euclidean" else total
    return total * np.float32(1 - 2 * (channels + parts + 8) * UNIT)

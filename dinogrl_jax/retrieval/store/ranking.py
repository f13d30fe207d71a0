"""The nearest descriptors of a gallery, exactly: filter by bounds, refine, stop.

Distances are those of `distances.exact_distance`, float64 of the stored numbers, which depend on
nothing but the two descriptors: so the answer is that of an exhaustive search to the bit, and
equally near tracklets come in the order in which they were added.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.store.bounds import (
    BOUNDED,
    block_bounds,
    near_distances,
    query_terms,
)
from dinogrl_jax.retrieval.store.database import Stored
from dinogrl_jax.retrieval.store.files import (
    BOUNDS,
    DescriptorFile,
    block_count,
    blocks_size,
    bound_block,
    opened,
)

FEW = 2048  # descriptors up to which all are compared
AT_ONCE = 128  # descriptors that a thread compares at a time
BLOCK = 1024  # descriptors of a block where a whole file is read
# Beyond this share of candidates it is faster to read all in their order.
MANY = 1 / 4

_block_distances = jax.jit(distances.block_distances, static_argnums=0)


class Nearest(NamedTuple):
    """The nearest tracklets: places and float64 distances, nearest first."""

    places: Int[np.ndarray, " k"]
    distance: Float[np.ndarray, " k"]

    def merged(self, places: np.ndarray, distance: np.ndarray, k: int) -> "Nearest":
        """With others; equal distances in the order of places."""
        places = np.concatenate([self.places, places])
        distance = np.concatenate([self.distance, distance])
        order = np.lexsort((places, distance))[:k]
        return Nearest(places[order], distance[order])

    def farthest(self, k: int) -> float:
        """The distance up to which others may still be among the k nearest."""
        return float(self.distance[-1]) if len(self.places) == k else np.inf


NOBODY = Nearest(np.zeros(0, int), np.zeros(0))


def nearest(
    folder: Path,
    at: Stored,
    query: Float32[np.ndarray, "p d"],
    k: int,
    places: Int[np.ndarray, " n"] | None = None,
) -> Nearest:
    """The k nearest tracklets of a gallery; fewer where there are fewer.

    places: which tracklets count, ascending; None: all.
    """
    everyone = np.arange(at.count) if places is None else places
    stored = DescriptorFile(folder, at)
    with stored.opened() as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        compare = Comparison(at.facts.source.distance, query, stored, file, pool, k)
        if len(everyone) <= max(FEW, k):
            return compare.improved(NOBODY, everyone)
        found, left = NOBODY, everyone
        if at.facts.source.distance in BOUNDED and at.directions is not None:
            bound = _bounds(folder, at, query, pool)[everyone]
            first = np.argpartition(bound, max(AT_ONCE, k))[: max(AT_ONCE, k)]
            found = compare.improved(found, everyone[first])
            near = bound <= found.farthest(k)  # equal ones too: a tie may come before
            near[first] = False
            left, bound = everyone[near], bound[near]
        if len(left) <= MANY * at.count:
            return compare.improved_in_turns(found, left, bound)
        bound = compare.near(at.count)[left]
        order = np.argsort(bound, kind="stable")
        for some in np.array_split(order, -(-len(order) // AT_ONCE)):
            some = some[bound[some] <= found.farthest(k)]
            if not len(some):
                break
            found = found.merged(left[some], compare.exact(left[some]), k)
        return found


def _bounds(
    folder: Path, at: Stored, query: Float32[np.ndarray, "p d"], pool: ThreadPoolExecutor
) -> Float32[np.ndarray, " n"]:
    """A lower bound of the distance to each descriptor."""
    terms, name = query_terms(at.directions, query), at.facts.source.distance
    found = np.empty(at.count, np.float32)

    def fill(number: int) -> None:  # mapped here: no more blocks at once than threads
        places, columns = bound_block(file, at, number)
        made = np.asarray(block_bounds(name, terms, columns))
        found[places] = made[: places.stop - places.start]

    with opened(folder / BOUNDS, os.O_RDONLY, blocks_size(at)) as file:
        list(pool.map(fill, range(block_count(at))))
    return found


class Comparison(NamedTuple):
    """A query and the file that it is compared with."""

    name: str  # of the distance
    query: Float32[np.ndarray, "p d"]
    stored: DescriptorFile
    file: int
    pool: ThreadPoolExecutor
    k: int

    def improved_in_turns(
        self, found: Nearest, places: Int[np.ndarray, " n"], bound: Float[np.ndarray, " n"]
    ) -> Nearest:
        """With those of places that are nearer, whose distances are no less than bounds."""
        order = np.argsort(bound, kind="stable")
        step = AT_ONCE * (os.cpu_count() or 1)
        for start in range(0, len(order), step):
            some = order[start : start + step]
            some = some[bound[some] <= found.farthest(self.k)]
            if not len(some):  # nor is any behind them
                break
            found = self.improved(found, places[some])
        return found

    def improved(self, found: Nearest, places: Int[np.ndarray, " n"]) -> Nearest:
        """With those of places that are nearer, which float32 tells but for a few."""
        pieces = [places[i : i + AT_ONCE] for i in range(0, len(places), AT_ONCE)]
        near = np.concatenate([*self.pool.map(self._near_of_some, pieces), np.zeros(0)])
        order = np.argsort(near, kind="stable")
        missing = self.k - len(found.places)
        head, tail = order[:missing], order[missing:]
        found = found.merged(places[head], self.exact(places[head]), self.k)
        tail = tail[near[tail] <= found.farthest(self.k)]
        return found.merged(places[tail], self.exact(places[tail]), self.k)

    def exact(self, places: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Float64 distances to the descriptors at places."""
        zero = np.zeros(self.query.shape, np.float32)
        rows = (self.stored.rows(self.file, [x])[0].astype(np.float32) for x in places.tolist())
        pairs = (distances.exact_distance(self.name, self.query, row, zero) for row in rows)
        return np.fromiter(pairs, float, len(places))

    def _near_of_some(self, places: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        if self.name not in BOUNDED:  # one shape, for which a program is compiled
            filled = np.resize(places, AT_ONCE)
            return self._less_rounding(self.stored.rows(self.file, filled))[: len(places)]
        return self._less_rounding(self.stored.rows(self.file, places))

    def near(self, count: int) -> Float[np.ndarray, " n"]:
        """Lower bounds of the distances to all descriptors, as near as float32 has them."""
        bound = np.empty(count)

        def fill(start: int) -> None:
            start = min(start, count - BLOCK)  # the last overlaps: one shape is compiled
            block = self.stored.block(self.file, start, start + BLOCK)
            bound[start : start + BLOCK] = self._less_rounding(block)

        list(self.pool.map(fill, range(0, count, BLOCK)))
        return bound

    def _less_rounding(self, rows: Shaped[np.ndarray, "n p d"]) -> Float[np.ndarray, " n"]:
        """The float32 distances of descriptors, less what rounding may have added."""
        if self.name in BOUNDED:
            return near_distances(self.name, self.query, rows).astype(float)
        rows = rows.astype(np.float32, copy=False)
        offset = distances.centring_offset(self.name, self.query[None])
        sides = [distances.centred_operand(x, offset) for x in (self.query[None], rows)]
        found = np.asarray(_block_distances(self.name, *sides), float)[0]
        own, other = (np.asarray(distances.descriptor_lengths(x), float) for x in sides)
        scale = (own + other) ** 2
        return found - distances.tolerance(self.name, found, scale, len(offset), np.float32)

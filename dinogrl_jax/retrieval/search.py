"""Exact ranks of matches, block by block and over all devices.

Figures depend on distances only through the number of negatives that precede each match. So no
matrix is kept: the float64 distances of the matching pairs are computed first, then each block of
float32 distances is compared with them, and the few pairs that float32 cannot decide are computed
in float64. The result depends neither on the blocks nor on the devices.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.gallery import (
    Comparison,
    DescriptorSet,
    DeviceBlock,
    JunkRule,
    device_blocks,
    exact_distances,
    junk_mask,
    pair_distances,
)

ONE_BY_ONE = 1 / 64  # up to this share of a block's pairs, computing them one by one is faster


class Matches(NamedTuple):
    """Matches of each tracklet: float64 distances (none: −inf), places in the other set (−1)."""

    distance: Float[np.ndarray, "n m"]
    place: Int[np.ndarray, "n m"]


class Side(NamedTuple):
    """A block of a set, and the matches of the set's tracklets in the other one."""

    whole: DescriptorSet
    found: Matches
    places: Int[np.ndarray, " b"]  # of the block
    length: Float[np.ndarray, " n"]  # of its descriptors, n of them with the padding


class BlockCounts(NamedTuple):
    """How many negatives of a block are nearer to a tracklet than each of its matches."""

    surely: Int[Array, "n m"]
    perhaps: Int[Array, "n m"]  # with those that float32 cannot decide
    low: Float[Array, "n m"]  # float32 cannot decide from low to high, both included
    high: Float[Array, "n m"]


def negative_counts(
    query: DescriptorSet, gallery: DescriptorSet, comparison: Comparison, both: bool = False
) -> list[tuple[Int[np.ndarray, "n m"], Bool[np.ndarray, "n m"]]]:
    """How many negatives precede each match of each query, and which entries are matches.

    With `both`, a second pair holds the same for the opposite direction, from the same distances.
    An entry precedes a match if it is nearer, or equally near (to float64 rounding) and earlier in
    the gallery. Negatives are entries of another identity that are not junk.

    Memory beside the descriptors: a copy of the queries, six blocks of descriptors, two blocks of
    distances, and O((q + g) · m). Time: linear in q · g.
    """
    found = all_matches(query, gallery, comparison, both)
    counts = [np.zeros(x.place.shape, np.int64) for x in found]
    compared = itertools.chain(_compared_blocks(query, gallery, found, comparison), [None])
    # in pairs: devices compute the next blocks while the host uses these
    for (left, right, arrays), _ in itertools.pairwise(compared):
        distance, there, back = jax.tree.map(np.asarray, arrays)
        _add_counts(counts[0], there, distance, comparison, left, right)
        _add_counts(counts[1], back, distance.T, comparison, right, left)
    return [(c, x.place >= 0) for c, x in zip(counts, found, strict=True)][: 1 + both]


def all_matches(
    query: DescriptorSet, gallery: DescriptorSet, comparison: Comparison, both: bool
) -> tuple[Matches, Matches]:
    """The matches of every query and, with `both`, those of every gallery entry as a query."""
    pairs = list(places_by_identity(query, gallery))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda pair: exact_distances(comparison, query, gallery, *pair), pairs)
        there = [(q, g, distance) for (q, g), distance in zip(pairs, made, strict=True)]
    back = [(g, q, distance.T) for q, g, distance in there if both]
    junk = comparison.junk
    return _stored_matches(junk, query, gallery, there), _stored_matches(junk, gallery, query, back)


def places_by_identity(query: DescriptorSet, gallery: DescriptorSet) -> Iterator[tuple]:
    """For each identity that both sets have, its places in both, ascending."""
    order = [np.argsort(x.identity, kind="stable") for x in (query, gallery)]
    for identity in np.intersect1d(query.identity, gallery.identity):
        yield tuple(
            o[slice(*np.searchsorted(x.identity, (identity, identity + 1), sorter=o))]
            for o, x in zip(order, (query, gallery), strict=True)
        )


def _stored_matches(
    junk: JunkRule, query: DescriptorSet, gallery: DescriptorSet, found: list[tuple]
) -> Matches:
    """The matches that are not junk, of the places and the distances of each identity."""
    width = max((len(g) for _, g, _ in found), default=0)
    shape = (len(query.rows), -(-width // 8) * 8)  # rounded up: few shapes mean few programs
    matches = Matches(np.full(shape, -np.inf), np.full(shape, -1))
    for q, g, distance in found:
        ignored = junk_mask(junk, query, gallery, q[:, None], g[None, :])
        matches.distance[q, : len(g)] = np.where(ignored, -np.inf, distance)
        matches.place[q, : len(g)] = np.where(ignored, -1, g)
    return matches


def _compared_blocks(
    query: DescriptorSet, gallery: DescriptorSet, found, comparison: Comparison
) -> Iterator[tuple[Side, Side, tuple]]:
    """Every pair of blocks, and what `_compare_block` makes of it."""
    queries = list(device_blocks(query, found[0].distance, comparison, sharded=False))
    galleries = device_blocks(gallery, found[1].distance, comparison, sharded=True)
    for columns, right in _prefetched(galleries):
        for rows, left in queries:
            yield (
                Side(query, found[0], rows, np.asarray(left.length, np.float64)),
                Side(gallery, found[1], columns, np.asarray(right.length, np.float64)),
                _compare_block(comparison.name, comparison.junk, left, right),
            )


def _prefetched(items: Iterator) -> Iterator:
    """The items; another thread makes the next one while one is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


@partial(jax.jit, static_argnames=("name", "junk"))
def _compare_block(name: str, junk: JunkRule, query: DeviceBlock, gallery: DeviceBlock) -> tuple:
    """The distances of a block, and the counts of its queries and of its gallery entries."""
    distance = distances.block_distances(name, query.operand, gallery.operand)
    there = _block_counts(name, junk, distance, query, gallery)
    back = _block_counts(name, junk, distance.T, gallery, query)
    return distance, there, back


def _block_counts(
    name: str, junk: JunkRule, distance: Array, query: DeviceBlock, gallery: DeviceBlock
) -> BlockCounts:
    own = query.identity[:, None], query.camera[:, None]
    other = gallery.identity[None, :], gallery.camera[None, :]
    real = query.valid[:, None] & gallery.valid[None, :]
    negative = real & (own[0] != other[0]) & ~junk(*own, *other)
    distance = jnp.where(negative, distance, jnp.inf)

    scale = (query.length + gallery.length.max()) ** 2
    parts = len(query.operand.offset)
    margin = distances.tolerance(name, query.match_distance, scale[:, None], parts, np.float32)
    low, high = query.match_distance - margin, query.match_distance + margin

    # One match at a time, and both sums in one reduction: XLA on a CPU does not vectorise a sum
    # over [n, m, entries], nor does it fuse the two sums by itself.
    def both_counts(bounds):
        below = distance < bounds[0][:, None], distance <= bounds[1][:, None]
        below = tuple(x.astype(jnp.int32) for x in below)
        return jax.lax.reduce(below, (0, 0), lambda x, y: (x[0] + y[0], x[1] + y[1]), (1,))

    surely, perhaps = jax.lax.map(both_counts, (low.T, high.T))
    return BlockCounts(surely.T, perhaps.T, low, high)


def _add_counts(
    count: np.ndarray,
    compared: BlockCounts,
    distance: np.ndarray,
    comparison: Comparison,
    query: Side,
    gallery: Side,
) -> None:
    """Add to `count` the negatives of the gallery's block that precede matches of the queries'."""
    q, g = query.places, gallery.places
    compared = BlockCounts(*(x[: len(q)] for x in compared))
    count[q] += compared.surely
    i, j = _undecided_pairs(compared, distance[: len(q), : len(g)])
    same = query.whole.identity[q[i]] == gallery.whole.identity[g[j]]
    ignored = junk_mask(comparison.junk, query.whole, gallery.whole, q[i], g[j])
    i, j = i[~same & ~ignored], j[~same & ~ignored]

    near = distance[i, j, None]
    open_ = (near >= compared.low[i]) & (near <= compared.high[i])
    settled = _exact_pair_distances(comparison, query, gallery, distance.shape, i, j)[:, None]
    scale = (query.length[i] + gallery.length[j]) ** 2
    margin = distances.tolerance(
        comparison.name, settled, scale[:, None], len(comparison.offset), np.float64
    )
    nearer = query.found.distance[q[i]] - settled
    tied = (np.abs(nearer) <= margin) & (g[j, None] < query.found.place[q[i]])
    np.add.at(count, q[i], open_ & (tied | (nearer > margin)))


def _undecided_pairs(compared: BlockCounts, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose order to some match float32 cannot decide; the matches are among them."""
    some = compared.perhaps > compared.surely
    rows = np.flatnonzero(some.any(1))
    unsure = np.zeros((len(rows), distance.shape[1]), bool)
    for nth in range(some.shape[1]):
        own = np.flatnonzero(some[rows, nth])
        low, high = (x[rows[own], nth, None] for x in (compared.low, compared.high))
        near = distance[rows[own]]
        unsure[own] |= (near >= low) & (near <= high)
    own, j = np.nonzero(unsure)
    return rows[own], j


def _exact_pair_distances(
    comparison: Comparison, query: Side, gallery: Side, shape: tuple[int, int], i, j
) -> Float[np.ndarray, " n"]:
    """Float64 distances of the pairs (i, j) of a block that is padded to a shape."""
    sides, places = (query, gallery), (query.places[i], gallery.places[j])
    if len(i) > ONE_BY_ONE * shape[0] * shape[1]:
        # resized to the shape of the other blocks, for which the program has been compiled
        padded = (x.whole.take(np.resize(x.places, n)) for x, n in zip(sides, shape, strict=True))
        return distances.exact_distances_by_xla(comparison.name, *padded, comparison.offset)[i, j]
    return pair_distances(comparison, query.whole, gallery.whole, *places)

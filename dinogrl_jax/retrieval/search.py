"""Exact ranks of matches, block by block and over all devices.

Figures depend on distances only through the number of negatives that precede each match. So no
matrix is kept: the float64 distances of the matching pairs are computed first, then each block of
float32 distances is compared with them, and the few pairs that float32 cannot decide are computed
in float64. The result depends neither on the blocks nor on the devices.
"""

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
    exact_distance,
    exact_distances,
    exact_distances_at_once,
    junk_mask,
)

ONE_BY_ONE = 1 / 64  # up to this share of a block's pairs, computing them one by one is faster


class Matches(NamedTuple):
    """Matches of each tracklet: float64 distances (none: −inf), places in the other set (−1)."""

    distance: Float[np.ndarray, "n m"]
    place: Int[np.ndarray, "n m"]


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
    for rows, left, columns, right, compared in _compared_blocks(query, gallery, found, comparison):
        distance, there, back = jax.tree.map(np.asarray, compared)
        lengths = [np.asarray(side.length, np.float64) for side in (left, right)]
        _add_counts(
            counts[0], found[0], there, distance, lengths, comparison, query, gallery, rows, columns
        )
        lengths = lengths[::-1]
        _add_counts(
            counts[1],
            found[1],
            back,
            distance.T,
            lengths,
            comparison,
            gallery,
            query,
            columns,
            rows,
        )
    return [(c, x.place >= 0) for c, x in zip(counts, found, strict=True)][: 1 + both]


def all_matches(
    query: DescriptorSet, gallery: DescriptorSet, comparison: Comparison, both: bool
) -> tuple[Matches, Matches]:
    """The matches of every query and, with `both`, those of every gallery entry as a query."""
    pairs = list(places_by_identity(query, gallery))
    forward = _no_matches(query, max((len(g) for _, g in pairs), default=0))
    backward = _no_matches(gallery, max((len(q) for q, _ in pairs), default=0) if both else 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        distance_of = pool.map(
            lambda pair: exact_distances(comparison, query, gallery, *pair), pairs
        )
        for (q, g), distance in zip(pairs, distance_of, strict=True):
            _store_matches(forward, comparison, query, gallery, q, g, distance)
            if both:
                _store_matches(backward, comparison, gallery, query, g, q, distance.T)
    return forward, backward


def places_by_identity(query: DescriptorSet, gallery: DescriptorSet) -> Iterator[tuple]:
    """For each identity that both sets have, its places in both, ascending."""
    order = [np.argsort(x.identity, kind="stable") for x in (query, gallery)]
    for identity in np.intersect1d(query.identity, gallery.identity):
        yield tuple(
            o[slice(*np.searchsorted(x.identity, (identity, identity + 1), sorter=o))]
            for o, x in zip(order, (query, gallery), strict=True)
        )


def _no_matches(x: DescriptorSet, width: int) -> Matches:
    shape = (len(x.rows), -(-width // 8) * 8)  # rounded up: few shapes mean few compiled programs
    return Matches(np.full(shape, -np.inf), np.full(shape, -1))


def _store_matches(
    found: Matches, comparison: Comparison, query, gallery, own, other, distance
) -> None:
    junk = junk_mask(comparison.junk, query, gallery, own[:, None], other[None, :])
    found.distance[own, : len(other)] = np.where(junk, -np.inf, distance)
    found.place[own, : len(other)] = np.where(junk, -1, other)


def _compared_blocks(
    query: DescriptorSet, gallery: DescriptorSet, found, comparison: Comparison
) -> Iterator[tuple]:
    """Every pair of blocks, compared; devices compute the next one while the host uses this one."""
    queries = list(device_blocks(query, found[0].distance, comparison, sharded=False))
    pending = None
    for columns, right in _prefetched(
        device_blocks(gallery, found[1].distance, comparison, sharded=True)
    ):
        for rows, left in queries:
            compared = _compare_block(comparison.name, comparison.junk, left, right)
            if pending:
                yield pending
            pending = rows, left, columns, right, compared
    yield pending


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
    count,
    found: Matches,
    compared: BlockCounts,
    distance,
    lengths,
    comparison,
    query,
    gallery,
    q,
    g,
):
    """Add to `count` the negatives among the gallery places g that precede matches of queries q."""
    compared = BlockCounts(*(x[: len(q)] for x in compared))
    count[q] += compared.surely
    i, j = _undecided_pairs(compared, distance[: len(q), : len(g)])
    own, other = q[i], g[j]
    same = query.identity[own] == gallery.identity[other]
    negative = ~same & ~junk_mask(comparison.junk, query, gallery, own, other)
    i, j, own, other = (x[negative] for x in (i, j, own, other))

    open_ = (distance[i, j, None] >= compared.low[i]) & (distance[i, j, None] <= compared.high[i])
    settled = _exact_pair_distances(comparison, query, gallery, q, g, distance.shape, i, j)[:, None]
    scale = (lengths[0][i] + lengths[1][j]) ** 2
    margin = distances.tolerance(
        comparison.name, settled, scale[:, None], len(comparison.offset), np.float64
    )
    nearer = found.distance[own] - settled
    tied = (np.abs(nearer) <= margin) & (other[:, None] < found.place[own])
    np.add.at(count, own, open_ & (tied | (nearer > margin)))


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
    comparison: Comparison, query, gallery, q, g, shape, i, j
) -> Float[np.ndarray, " n"]:
    """Float64 distances of the pairs (q[i], g[j]) of a block."""
    if len(i) > ONE_BY_ONE * shape[0] * shape[1]:
        # resized to the size of the other blocks, for which the program has been compiled
        return exact_distances_at_once(
            comparison, query, gallery, np.resize(q, shape[0]), np.resize(g, shape[1])
        )[i, j]
    pairs = zip(q[i], g[j], strict=True)
    return np.array([exact_distance(comparison, query, gallery, *pair) for pair in pairs])

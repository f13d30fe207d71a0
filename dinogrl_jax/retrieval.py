"""Who precedes whom: exact ranks of matches and nearest entries, block by block, sharded.

A figure depends on distances only through the number of negatives that precede each match. So no
matrix is kept: float64 distances of the matching pairs come first, every block of float32 distances
is then compared with them, and the few pairs that float32 cannot decide are computed in float64.
The result depends neither on blocks nor on devices.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dinogrl_jax import distances
from dinogrl_jax.gallery import (
    Junk,
    Side,
    Task,
    Tracklets,
    exact,
    exact_block,
    exact_pair,
    ignored,
    sides,
)

ONE_BY_ONE = 1 / 64  # share of a block's pairs above which all of them together cost less


class Matches(NamedTuple):
    """Each tracklet's matches: float64 distances (−inf: none) and places in the other set (−1)."""

    distance: Float[np.ndarray, "n m"]
    place: Int[np.ndarray, "n m"]


def count_negatives(
    query: Tracklets, gallery: Tracklets, t: Task, both: bool = False
) -> list[tuple[Int[np.ndarray, "n m"], Bool[np.ndarray, "n m"]]]:
    """How many negatives precede each match of each query, and which entries are matches.

    For `both` a second pair holds the same for gallery entries as queries, from the same
    distances. An entry precedes a match if it is nearer, or as near (to float64 rounding) and
    earlier in the gallery. Negatives are what neither shares the query's identity nor is junk.

    Memory over the features: a copy of the queries, six blocks of features, two of distances,
    and O((q + g) · m). Time: linear in q · g.
    """
    found = matches(query, gallery, t, both)
    counts = [np.zeros(x.place.shape, np.int64) for x in found]
    for rows, left, columns, right, compared in _one_ahead(query, gallery, found, t):
        preceding, succeeding, unsure = map(np.asarray, compared)
        counts[0][rows] += preceding[: len(rows)]
        counts[1][columns] += succeeding[: len(columns)]
        i, j = np.nonzero(unsure)
        scale = (np.asarray(left.length, np.float64)[i] + np.asarray(right.length)[j]) ** 2
        distance = _settled(query, gallery, t, rows, columns, unsure.shape, i, j)
        _decide(query, gallery, found, counts, t, rows[i], columns[j], distance, scale)
    return [(c, x.place >= 0) for c, x in zip(counts, found, strict=True)][: 1 + both]


def matches(query: Tracklets, gallery: Tracklets, t: Task, both: bool) -> tuple[Matches, Matches]:
    """The matches of every query and, for `both`, those of every gallery entry as a query."""
    pairs = list(same_identity(query, gallery))
    forward = _no_matches(query, max((len(g) for _, g in pairs), default=0))
    backward = _no_matches(gallery, max((len(q) for q, _ in pairs), default=0) if both else 0)
    with ThreadPoolExecutor() as pool:
        distance_of = pool.map(lambda pair: exact(t, query, gallery, *pair), pairs)
        for (q, g), distance in zip(pairs, distance_of, strict=True):
            _fill(forward, t, query, gallery, q, g, distance)
            if both:
                _fill(backward, t, gallery, query, g, q, distance.T)
    return forward, backward


def same_identity(query: Tracklets, gallery: Tracklets) -> Iterator[tuple]:
    """The places in both sets, ascending, of each identity that both have."""
    order = [np.argsort(x.identity, kind="stable") for x in (query, gallery)]
    for identity in np.intersect1d(query.identity, gallery.identity):
        yield tuple(
            o[slice(*np.searchsorted(x.identity, (identity, identity + 1), sorter=o))]
            for o, x in zip(order, (query, gallery), strict=True)
        )


def _no_matches(x: Tracklets, width: int) -> Matches:
    shape = (len(x.rows), -(-width // 8) * 8)  # few shapes, so that programs are compiled once
    return Matches(np.full(shape, -np.inf), np.full(shape, -1))


def _fill(found: Matches, t: Task, query, gallery, own, other, distance) -> None:
    junk = ignored(t.junk, query, gallery, own[:, None], other[None, :])
    found.distance[own, : len(other)] = np.where(junk, -np.inf, distance)
    found.place[own, : len(other)] = np.where(junk, -1, other)


def _one_ahead(query: Tracklets, gallery: Tracklets, found, t: Task) -> Iterator[tuple]:
    """Every pair of blocks, compared; the devices work on the next while the host uses this."""
    queries = list(sides(query, found[0].distance, t, sharded=False))
    pending = None
    for columns, right in _prefetched(sides(gallery, found[1].distance, t, sharded=True)):
        for rows, left in queries:
            compared = _compare(t.name, t.junk, left, right)
            if pending:
                yield pending
            pending = rows, left, columns, right, compared
    yield pending


def _prefetched(items: Iterator) -> Iterator:
    """The items, each made by another thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


@partial(jax.jit, static_argnames=("name", "junk"))
def _compare(name: str, junk: Junk, query: Side, gallery: Side) -> tuple:
    """Negatives that surely precede each match, both ways, and the pairs that stay undecided."""
    distance = distances.block(name, query.operand, gallery.operand)
    there = _negative(junk, query, gallery)
    back = _negative(junk, gallery, query).T
    unsure = there & _near(name, distance, query, gallery)
    unsure |= back & _near(name, distance.T, gallery, query).T
    preceding = _preceding(jnp.where(there & ~unsure, distance, jnp.inf), query.matched)
    succeeding = _preceding(jnp.where(back & ~unsure, distance, jnp.inf).T, gallery.matched)
    return preceding, succeeding, unsure


def _negative(junk: Junk, query: Side, gallery: Side) -> Bool[Array, "q g"]:
    own = query.identity[:, None], query.camera[:, None]
    other = gallery.identity[None, :], gallery.camera[None, :]
    real = query.real[:, None] & gallery.real[None, :]
    return real & (own[0] != other[0]) & ~junk(*own, *other)


def _near(name: str, distance: Array, query: Side, gallery: Side) -> Bool[Array, "q g"]:
    """Whether float32 leaves open on which side of a match of the query an entry is."""
    scale = (query.length + gallery.length.max()) ** 2
    parts = query.operand.parts.shape[0]
    margin = distances.tolerance(name, query.matched, scale[:, None], parts, np.float32)
    away = jnp.abs(distance[:, None, :] - query.matched[:, :, None])
    return (away <= margin[:, :, None]).any(1)


def _preceding(distance: Array, matched: Array) -> Int[Array, "n m"]:
    """How many distances of each row are below each of its matches' distances."""
    # one match at a time: XLA on a CPU does not vectorise the sum over [n, m, entries]
    return jax.lax.map(lambda m: (distance < m[:, None]).sum(1, dtype=jnp.int32), matched.T).T


def _settled(
    query: Tracklets, gallery: Tracklets, t: Task, rows, columns, shape, i, j
) -> np.ndarray:
    """Float64 distances of the undecided pairs (rows[i], columns[j]) of a block."""
    if len(i) > ONE_BY_ONE * shape[0] * shape[1]:
        # repeated up to the size of the other blocks, for which the program is compiled
        all_rows, all_columns = np.resize(rows, shape[0]), np.resize(columns, shape[1])
        return exact_block(t, query, gallery, all_rows, all_columns)[i, j]
    pairs = zip(rows[i], columns[j], strict=True)
    return np.array([exact_pair(t, query, gallery, *pair) for pair in pairs])


def _decide(query, gallery, found, counts, t: Task, i, j, distance, scale) -> None:
    """Count undecided pairs (i, j) by their float64 distances."""
    margin = distances.tolerance(t.name, distance, scale, len(t.offset), np.float64)[:, None]

    def add(side: int, own, other, queries: Tracklets, entries: Tracklets):
        nearer = found[side].distance[own] - distance[:, None]
        tied = (np.abs(nearer) <= margin) & (other[:, None] < found[side].place[own])
        junk = ignored(t.junk, queries, entries, own, other)
        negative = (queries.identity[own] != entries.identity[other]) & ~junk
        np.add.at(counts[side], own, negative[:, None] & (tied | (nearer > margin)))

    add(0, i, j, query, gallery)
    add(1, j, i, gallery, query)

"""The nearest gallery entries of each query, exact and block by block."""

import numpy as np
from jaxtyping import Float, Int

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.gallery import (
    Comparison,
    DescriptorSet,
    JunkRule,
    check_finite,
    comparable_sets,
    comparison_of,
    junk_mask,
    pair_distances,
    same_camera,
)

LIMIT = 1 << 24  # distances in memory


def nearest_entries(
    query: DescriptorSet,
    gallery: DescriptorSet,
    k: int,
    junk: JunkRule = same_camera,
    distance: str = "part_euclidean",
    **options,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """The k nearest gallery entries of each query, without junk, and their float64 distances.

    The nearest comes first; equal distances (to float64 rounding) are in gallery order. If fewer
    than k are left, the others are entry −1 at distance inf. `options` are those of
    `metrics.one_direction`; the host computes.

    Raises InputError for an empty set, widths that disagree, NaN, or k below 1.
    """
    if k < 1:
        raise InputError(f"{k} nearest entries: ask for 1 or more")
    query, gallery = comparable_sets(query, gallery)
    comparison = comparison_of(distance, junk, query, **options)
    count = len(query.rows)
    blocks = np.array_split(np.arange(count), min(count, -(-count * len(gallery.rows) // LIMIT)))
    found = [_nearest_of_some(query, gallery, k, comparison, q) for q in blocks]
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def _nearest_of_some(query, gallery, k: int, comparison: Comparison, q) -> tuple:
    """The result for the queries at places q."""
    name, junk, offset, _, size = comparison
    descriptors, everyone = query.take(q), np.arange(len(gallery.rows))
    longest, columns = 0.0, []
    for start in range(0, len(everyone), size):
        block = gallery.take(everyone[start : start + size])
        longest = max(longest, _checked_lengths(block, start, offset, "gallery").max())
        columns.append(distances.exact_distances_by_xla(name, descriptors, block, offset))
    distance = np.concatenate(columns, axis=1)
    distance[junk_mask(junk, query, gallery, q[:, None], everyone[None, :])] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")
    distance = np.take_along_axis(distance, order, axis=1)
    scale = (_checked_lengths(descriptors, int(q[0]), offset, "query") + longest)[:, None] ** 2
    with np.errstate(invalid="ignore"):  # inf − inf and 0 · inf, of junk
        margin = distances.tolerance(name, distance[:, 1:], scale, len(offset), np.float64)
        farther = ~(np.diff(distance) <= margin)
    tie = np.pad(np.cumsum(farther, axis=1), ((0, 0), (1, 0)))  # equal distances share a number
    places = np.take_along_axis(order, np.lexsort((order, tie)), axis=1)
    places = np.where(np.isfinite(distance), places, -1)[:, :k]
    places = np.pad(places, ((0, 0), (0, k - places.shape[1])), constant_values=-1)
    i, j = np.nonzero(places >= 0)
    distance = np.full(places.shape, np.inf)
    distance[i, j] = pair_distances(comparison, query, gallery, q[i], places[i, j])
    return places, distance


def _checked_lengths(x: Float[np.ndarray, "n p d"], start: int, offset, what: str) -> np.ndarray:
    length = np.linalg.norm((x - offset).reshape(len(x), -1), axis=1)
    check_finite(length, start, what)
    return length

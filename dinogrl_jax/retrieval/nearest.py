"""The nearest gallery entries of each query, exact and block by block."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.gallery import (
    Comparison,
    DescriptorSet,
    DeviceBlock,
    JunkRule,
    comparable_sets,
    comparison_of,
    device_blocks,
    exact_distances,
    same_camera,
)


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
    `metrics.one_direction`.

    Raises InputError for an empty set, widths that disagree, NaN, or k below 1.
    """
    if k < 1:
        raise InputError(f"{k} nearest entries: ask for 1 or more")
    query, gallery = comparable_sets(query, gallery)
    comparison = comparison_of(distance, junk, query, **options)
    spare = 16  # candidates beyond k; float64 chooses among all of them
    while True:
        found = _nearest_among(query, gallery, k, k + spare, comparison)
        if found is not None:
            return found
        spare *= 8  # many entries are about as far as the k-th, duplicates for instance


def _nearest_among(
    query: DescriptorSet, gallery: DescriptorSet, k: int, keep: int, comparison: Comparison
):
    """The result, or None if it may hold entries beyond the `keep` nearest in float32."""
    none = np.zeros((max(len(query.rows), len(gallery.rows)), 0))
    queries = list(device_blocks(query, none, comparison, sharded=False))
    best = [_no_entries_yet(len(left.valid), keep) for _, left in queries]
    longest = 0.0
    for columns, right in device_blocks(gallery, none, comparison, sharded=True):
        longest = max(longest, float(right.length.max()))
        best = [
            _merged_nearest(comparison.name, comparison.junk, left, right, columns[0], *so_far)
            for (_, left), so_far in zip(queries, best, strict=True)
        ]
    chosen = []
    for (rows, left), so_far in zip(queries, best, strict=True):
        scale = (np.asarray(left.length, np.float64) + longest) ** 2
        for row in zip(rows, *map(np.asarray, so_far), scale, strict=False):
            chosen.append(_nearest_of_query(query, gallery, k, comparison, *row))
            if chosen[-1] is None:
                return None
    places, distance = zip(*chosen, strict=True)
    return np.stack(places), np.stack(distance)


def _no_entries_yet(count: int, keep: int) -> tuple[Array, Array]:
    return jnp.full((count, keep), jnp.inf), jnp.full((count, keep), -1, jnp.int32)


@partial(jax.jit, static_argnames=("name", "junk"))
def _merged_nearest(
    name: str,
    junk: JunkRule,
    query: DeviceBlock,
    gallery: DeviceBlock,
    start,
    best: Array,
    place: Array,
) -> tuple[Array, Array]:
    """The nearest by float32 distance, of those found so far and those of one block."""
    distance = distances.block_distances(name, query.operand, gallery.operand)
    own = query.identity[:, None], query.camera[:, None]
    other = gallery.identity[None, :], gallery.camera[None, :]
    distance = jnp.where(junk(*own, *other) | ~gallery.valid[None, :], jnp.inf, distance)
    places = jnp.broadcast_to(start + jnp.arange(distance.shape[1]), distance.shape)
    distance = jnp.concatenate([best, distance], axis=1)
    lowest, at = jax.lax.top_k(-distance, best.shape[1])
    places = jnp.concatenate([place, places.astype(jnp.int32)], axis=1)
    return -lowest, jnp.take_along_axis(places, at, axis=1)


def _nearest_of_query(query, gallery, k: int, comparison: Comparison, i, rough, places, scale):
    """The k nearest of one query in float64, or None if its candidates may lack some of them."""
    places = places[np.isfinite(rough)]
    distance = exact_distances(comparison, query, gallery, np.array([i]), places)[0]
    order = np.argsort(distance, kind="stable")
    distance, places = distance[order], places[order]
    if np.isfinite(rough[-1]):
        margin = distances.tolerance(
            comparison.name, distance[k - 1], scale, len(comparison.offset), np.float32
        )
        if rough[-1] <= distance[k - 1] + margin:
            return None
    margin = distances.tolerance(
        comparison.name, distance[1:], scale, len(comparison.offset), np.float64
    )
    tie = np.cumsum(np.diff(distance) > margin, dtype=int)  # equal distances share a number
    order = np.lexsort((places, np.concatenate([[0], tie])[: len(places)]))[:k]
    missing = (0, k - len(order))
    return (
        np.pad(places[order].astype(int), missing, constant_values=-1),
        np.pad(distance[order], missing, constant_values=np.inf),
    )

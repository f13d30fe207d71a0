"""k-reciprocal re-ranking and AuxNet's temporal variant of it.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dinogrl_jax.devices import memory
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.distances import distance_matrix


def k_reciprocal_distances(
    distance: Float[ArrayLike, "n n"],
    queries: int,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    rows: int = 64,
) -> Float[np.ndarray, "q g"]:
    """Re-ranked distances of the first `queries` tracklets to all others.

    `distance` holds all pairs of queries and gallery; each row is divided by its maximum. The code
    of a tracklet weighs its k1-reciprocal neighbours, and those of a neighbour if the two share
    more than two thirds; codes are then averaged over the k2 nearest. The result is
    weight · distance + (1 − weight) · Jaccard distance of the codes. A tracklet is its own
    neighbour; equal distances count in their order.

    The paper asks for two thirds or more; the code of its authors, which all published figures
    come from, and this one ask for more than two thirds. `rows` are computed at a time, in the
    dtype of `distance`, with four more arrays of its size in memory.

    Raises InputError for sizes that do not fit.
    """
    count = distance.shape[0]
    if not 0 < queries < count or not 0 < k2 <= k1 + 1 <= count:
        raise InputError(
            f"re-ranking {count} tracklets with {queries} queries, k1 {k1}, k2 {k2}: needs "
            "queries and gallery, k2 ≤ k1 + 1 and k1 below the number of tracklets"
        )
    with jax.enable_x64(distance.dtype == np.float64):
        scaled = jnp.asarray(distance)
        scaled = scaled / scaled.max(1, keepdims=True)
        codes = _codes(scaled, k1, k2, rows)
        # the longest code, rounded up to 64 so that few programs are compiled
        support = min(-(-int((codes > 0).sum(1).max()) // 64) * 64, count)
        jaccard = _jaccard(codes[:queries], codes[queries:].T, support)
        return np.asarray(weight * scaled[:queries, queries:] + (1 - weight) * jaccard)


def check_memory(count: int, itemsize: int) -> None:
    """Raise InputError where re-ranking so many tracklets needs more memory than this machine has.

    Of an accelerator's memory nothing is asked.

    It needs six arrays of all pairs: distances, twice, codes, before and after their mean, and what
    a compiled program puts aside. itemsize: bytes of a distance.
    """
    needed, there = 6 * itemsize * count**2, memory.available()
    if needed > there and jax.default_backend() == "cpu":
        raise InputError(
            f"re-ranking {count} tracklets takes about {needed / 2**30:.1f} GiB of memory, and "
            f"{there / 2**30:.1f} GiB are free: leave re-ranking out, or fewer tracklets in"
        )


@partial(jax.jit, static_argnames=("k1", "k2", "rows"))
def _codes(distance: Float[Array, "n n"], k1: int, k2: int, rows: int) -> Float[Array, "n n"]:
    """Each tracklet's weights exp(−distance) over its expanded neighbourhood, which sum to 1.

    They are averaged over the k2 nearest tracklets.
    """
    # the tracklet itself among them; of equally near ones the first
    nearest = jax.lax.map(lambda row: jax.lax.top_k(-row, k1 + 1)[1], distance, batch_size=rows)
    half = nearest[:, : round(k1 / 2) + 1]
    everyone = jnp.arange(distance.shape[0])
    # which neighbours of a tracklet have it among their own neighbours
    mutual, half_mutual = ((x[x] == everyone[:, None, None]).any(-1) for x in (nearest, half))

    def code(operands):
        own, row, neighbours, kept = operands
        theirs, shared = half[neighbours], half_mutual[neighbours]
        among = ((theirs[:, :, None] == neighbours) & kept).any(-1) & shared
        close = kept & (3 * among.sum(1) > 2 * shared.sum(1))
        # the tracklet itself belongs to it even if more than k1 copies come before it
        member = jnp.zeros(row.shape, bool).at[own].set(True).at[neighbours].max(kept)
        member = member.at[theirs].max(shared & close[:, None])
        weights = jnp.where(member, jnp.exp(-row), 0)
        return weights / weights.sum()

    codes = jax.lax.map(code, (everyone, distance, nearest, mutual), batch_size=rows)
    return jax.lax.map(lambda near: codes[near].mean(0), nearest[:, :k2], batch_size=rows)


@partial(jax.jit, static_argnames="support")
def _jaccard(
    query: Float[Array, "q n"], gallery: Float[Array, "n g"], support: int
) -> Float[Array, "q g"]:
    """1 − Σ min / Σ max of codes that sum to 1 and have at most `support` entries above 0."""

    def one(code):
        weights, places = jax.lax.top_k(code, support)
        common = jnp.minimum(weights[:, None], gallery[places]).sum(0)
        return 1 - common / (2 - common)

    return jax.lax.map(one, query)


class HalvedDescriptors(NamedTuple):
    """Descriptors of complete tracklets and of their halves."""

    whole: Float[ArrayLike, "n *pd"]
    first: Float[ArrayLike, "n *pd"]
    second: Float[ArrayLike, "n *pd"]


def temporal_distances(
    query: HalvedDescriptors,
    gallery: HalvedDescriptors,
    distance: str = "euclidean",
    k1: int = 5,
    k2: int = 3,
) -> Float[np.ndarray, "q g"]:
    """AuxNet's distances: 0.8 · plain + 0.2 · re-ranked + 0.1 · the sum of both across halves.

    Plain distances are not scaled; re-ranked ones are Jaccard distances only (weight 0).

    Source: Du et al., "Video-based Visible-Infrared Person Re-Identification with Auxiliary
    Samples" (GitHub dyhBUPT/BUPTCampus, re_ranking.py).
    """

    def reranked(a, b):
        both = np.concatenate([a, b])
        matrix = distance_matrix(distance, both, both)
        return k_reciprocal_distances(matrix, len(a), k1, k2, weight=0.0)

    plain = np.asarray(distance_matrix(distance, query.whole, gallery.whole))
    across = reranked(query.first, gallery.second) + reranked(query.second, gallery.first)
    return 0.8 * plain + 0.2 * reranked(query.whole, gallery.whole) + 0.1 * across

"""Re-ranking against sets and loops."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl_jax.devices import memory
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.distances import distance_matrix
from dinogrl_jax.retrieval.rerank import (
    HalvedDescriptors,
    check_memory,
    k_reciprocal_distances,
    temporal_distances,
)


def points(n, seed, integers=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, (n, 2)) if integers else rng.standard_normal((n, 4))
    return np.linalg.norm(x[:, None] - x, axis=-1)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
@pytest.mark.parametrize("k1, k2, weight", [(20, 6, 0.3), (5, 3, 0.0), (3, 1, 0.5)])
def test_oracle(k1, k2, weight, seed, integers):
    distance = points(45, seed, integers)
    expected = oracle.k_reciprocal(distance, 15, k1, k2, weight)
    # float64 sums of at most 45 terms
    np.testing.assert_allclose(
        k_reciprocal_distances(distance, 15, k1, k2, weight), expected, rtol=0, atol=1e-13
    )


def test_float32():
    distance = points(45, 0)
    expected = oracle.k_reciprocal(distance, 15, 20, 6, 0.3)
    # sums of up to 45 weights below 1 in float32; no neighbours are that close here
    np.testing.assert_allclose(
        k_reciprocal_distances(distance.astype(np.float32), 15), expected, atol=1e-6
    )


def test_rows_at_a_time_do_not_matter():
    distance = points(45, 1)
    few, many = (k_reciprocal_distances(distance, 15, rows=rows) for rows in (7, 64))
    # XLA may add in another order
    np.testing.assert_allclose(few, many, rtol=0, atol=1e-15)


def test_it_helps_where_neighbours_agree():
    """A query whose nearest entry is a stray one, but whose second has friends that it shares."""
    rng = np.random.default_rng(0)
    cluster = rng.normal(0, 0.3, (12, 2))
    x = np.concatenate([[[1.0, 0]], [[1.9, 0]], cluster, rng.normal([4, 0], 0.3, (12, 2))])
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    reranked = k_reciprocal_distances(distance, 1, k1=10, k2=3)
    own, stray = reranked[0, 1:13].mean(), reranked[0, 13:].mean()
    assert own < stray


def test_temporal_variant():
    rng = np.random.default_rng(2)
    query, gallery = (
        HalvedDescriptors(*rng.standard_normal((3, n, 6)).astype(np.float32)) for n in (10, 20)
    )

    def reranked(a, b):
        x = np.concatenate([a, b])
        distance = np.linalg.norm(x[:, None].astype(np.float64) - x, axis=-1)
        np.fill_diagonal(distance, np.diagonal(distance_matrix("euclidean", x, x)))
        return oracle.k_reciprocal(distance, 10, 5, 3, 0.0)

    expected = (
        0.8 * oracle.distances("euclidean", query.whole, gallery.whole)
        + 0.2 * reranked(query.whole, gallery.whole)
        + 0.1 * reranked(query.first, gallery.second)
        + 0.1 * reranked(query.second, gallery.first)
    )
    # In float32 a tracklet is 1e-3 from itself, the root of a rounding error, and the oracle has
    # the same distance there. Rounding leaves 7e-7; one neighbour more or less shows at 1e-2.
    np.testing.assert_allclose(temporal_distances(query, gallery), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("queries, k1, k2", [(0, 3, 1), (20, 3, 1), (5, 20, 1), (5, 3, 5)])
def test_bad_input(queries, k1, k2):
    with pytest.raises(InputError, match="re-ranking 20 tracklets"):
        k_reciprocal_distances(points(20, 0), queries, k1, k2)


def test_what_cannot_fit_is_said_before(monkeypatch):
    """Kind H: out of memory."""
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    check_memory(6_000, 4)
    with pytest.raises(InputError, match="re-ranking 7000 tracklets takes about 1.1 GiB"):
        check_memory(7_000, 4)

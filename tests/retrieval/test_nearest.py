"""The nearest entries against a sort of the whole matrix."""

import numpy as np
import oracle
import pytest
from sets import drawn, masks

from dinogrl_jax.retrieval.gallery import descriptor_set, no_junk, same_camera
from dinogrl_jax.retrieval.nearest import nearest_entries


@pytest.mark.parametrize("junk", [same_camera, no_junk])
@pytest.mark.parametrize("name", ["part_euclidean", "cosine"])
@pytest.mark.parametrize("integers", [False, True])
def test_against_sorting(junk, name, integers):
    query, gallery = drawn(8, 15, 90, integers)
    query, gallery = (x._replace(embedding=x.embedding + 1) for x in (query, gallery))
    distance = oracle.distances(name, query.embedding, gallery.embedding)
    # equal cosines of different vectors differ by rounding in the oracle
    distance = np.round(distance, 12)
    distance = np.where(masks(query, gallery, junk)[1], np.inf, distance)
    places, got = nearest_entries(query, gallery, 7, junk, name, size=32)
    np.testing.assert_array_equal(places, np.argsort(distance, axis=1, kind="stable")[:, :7])
    # float64 roundings of |a|² + |b|² − 2ab against a − b, near 0 their root
    np.testing.assert_allclose(got, np.sort(distance, axis=1)[:, :7], atol=2e-7)


def test_more_copies_than_spare_candidates():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6)).astype(np.float32)
    x[100:300] = x[100]
    query = descriptor_set(x[100:101] + 1e-3, np.array([0]))
    places, _ = nearest_entries(query, descriptor_set(x, np.ones(400, int)), 5, no_junk)
    assert places.tolist() == [[100, 101, 102, 103, 104]]


def test_fewer_than_k_left():
    query = descriptor_set(np.zeros((1, 3), np.float32), np.array([1]))
    gallery = descriptor_set(np.eye(3, dtype=np.float32), np.array([1, 2, 1]))
    places, distance = nearest_entries(query, gallery, 4, same_camera)
    assert places.tolist() == [[1, -1, -1, -1]]
    assert distance.tolist() == [[1, np.inf, np.inf, np.inf]]

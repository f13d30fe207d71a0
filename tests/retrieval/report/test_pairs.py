"""Histograms, thresholds and camera matrices against counting by hand."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl_jax.retrieval.directions import directions
from dinogrl_jax.retrieval.report.pairs import camera_matrix, direction_pairs
from dinogrl_jax.retrieval.report.verification import (
    Verification,
    equal_error_rate,
    roc_area,
    roc_points,
    threshold,
    verification,
    verification_facts,
)


def columns(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "embedding": rng.standard_normal((n, 2, 8)).astype(np.float32),
        "identity": rng.integers(0, 6, n),
        "camera": rng.integers(0, 3, n),
        "modality": rng.choice(["visible", "infrared"], n),
        "role": np.full(n, "both"),
    }


def test_pairs_are_those_that_the_protocol_counts():
    c = columns()
    direction = directions(**c)["visible_to_infrared"]
    p = direction_pairs(direction, "part_euclidean")
    rows, other = (np.flatnonzero(c["modality"] == m) for m in ("visible", "infrared"))
    np.testing.assert_array_equal(p.query, rows)
    expected = oracle.distances("part_euclidean", c["embedding"][rows], c["embedding"][other])
    np.testing.assert_allclose(p.distance, expected, rtol=1e-5)  # float32
    same = c["identity"][rows][:, None] == c["identity"][other]
    np.testing.assert_array_equal(p.same, same)
    np.testing.assert_array_equal(
        p.counted, ~(same & (c["camera"][rows][:, None] == c["camera"][other]))
    )
    v = verification([p])
    assert len(v.same) == (same & p.counted).sum() and len(v.different) == (~same).sum()


def test_of_many_queries_evenly_spaced_ones():
    direction = directions(**columns())["visible_to_infrared"]
    whole = direction_pairs(direction, "cosine")
    some = direction_pairs(direction, "cosine", limit=whole.distance.size // 3)
    assert some.distance.size <= whole.distance.size // 3 < 2 * some.distance.size
    step = -(-len(whole.query) // len(some.query))
    np.testing.assert_array_equal(some.query, whole.query[::step])
    np.testing.assert_allclose(some.distance, whole.distance[::step], rtol=1e-5)
    assert some.everyone == len(whole.query)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.3, 0.1, 0.02]))
def test_a_threshold_accepts_no_more_than_it_says(seed, ties, share):
    rng = np.random.default_rng(seed)
    same, different = rng.normal(0, 1, 40), rng.normal(1, 1, 200)
    if ties:
        same, different = np.round(same), np.round(different)
    v = Verification(np.sort(same), np.sort(different))
    t = threshold(v, share)
    assert (different < t.distance).mean() <= share
    assert t.true_accepts == (same < t.distance).mean()
    larger = different[different > t.distance]
    if len(larger):  # no larger threshold would do
        assert (different < larger.min()).mean() > share
    wins = (same[:, None] < different).mean() + (same[:, None] == different).mean() / 2
    assert roc_area(v) == pytest.approx(wins)
    points = roc_points(v)
    assert (np.diff(points, axis=0) >= 0).all()
    for false_accepts, true_accepts in points:
        below = np.sort(different)[round(false_accepts * len(different)) - 1]
        assert true_accepts == (same < below).mean()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([-3.0, 0.3, 1.0, 20.0]))
def test_the_equal_error_rate_is_where_the_roc_meets_the_falling_diagonal(seed, ties, shift):
    """By hand: all thresholds, and straight lines between them."""
    rng = np.random.default_rng(seed)
    same, different = rng.normal(0, 1, 30), rng.normal(shift, 1, 70)
    if ties:
        same, different = np.round(same), np.round(different)
    places = np.append(np.unique(np.concatenate([same, different])), np.inf)
    accepts = (different[:, None] < places).mean(0)
    rejects = (same[:, None] >= places).mean(0)
    fine = np.linspace(0, 1, 100_001)
    gap = np.interp(fine, np.arange(len(places)) / (len(places) - 1), accepts - rejects)
    at = np.argmin(np.abs(gap))
    expected = np.interp(fine[at], np.arange(len(places)) / (len(places) - 1), accepts)
    v = Verification(np.sort(same), np.sort(different))
    assert equal_error_rate(v) == pytest.approx(expected, abs=1e-3)
    assert 0 <= equal_error_rate(v) <= 1


def test_facts_of_the_pairs():
    p = direction_pairs(directions(**columns())["visible_to_infrared"], "part_euclidean")
    v = verification([p])
    facts = verification_facts(v, [p])
    assert facts["same_pairs"] + facts["different_pairs"] == p.counted.sum()
    assert facts["auc"] == roc_area(v) and facts["every_nth_query"] == 1
    tenth, *_, thousandth = facts["thresholds"][:3]
    t = threshold(v, 0.1)
    assert tenth == {"false_accepts": 0.1, "distance": t.distance, "true_accepts": t.true_accepts}
    assert thousandth == {"false_accepts": 0.001, "distance": None, "true_accepts": None}
    assert 10 < len(facts["roc"]) <= 25 and facts["roc"][-1][0] == 1
    assert verification_facts(Verification(v.same[:0], v.different), [p]) is None


def test_too_few_pairs_for_a_threshold():
    v = Verification(np.arange(3.0), np.arange(50.0))
    assert threshold(v, 0.01) is None
    assert threshold(v, 0.02).distance == 1


@pytest.mark.parametrize("camera_filter", [True, False])
def test_camera_matrix(camera_filter):
    c = columns(90)
    direction = directions(**c, camera_filter=camera_filter)["infrared_to_visible"]
    p = direction_pairs(direction, "part_euclidean")
    names = [f"D{9 + x}" for x in c["camera"]]
    m = camera_matrix(p, names)
    assert m.query_cameras == m.gallery_cameras == ["D9", "D10", "D11"]
    for i in range(3):
        for j in range(3):
            q, g = c["camera"][p.query] == i, c["camera"][p.gallery] == j
            ids = [c[k][r] for r in (p.query[q], p.gallery[g]) for k in ("identity", "camera")]
            if camera_filter and i == j:
                assert m.queries[i, j] == 0 and np.isnan(m.mAP[i, j])
                continue
            distance = p.distance[np.ix_(q, g)]
            expected = oracle.figures(distance, *ids, camera_filter=camera_filter)
            assert m.queries[i, j] == expected[3]
            assert m.mAP[i, j] == pytest.approx(expected[1], rel=1e-12)

"""CMC, mAP and mINP against golden values, an oracle, and what they must not depend on."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sets import drawn, masks

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import metrics, search
from dinogrl_jax.retrieval.distances import distance_matrix
from dinogrl_jax.retrieval.gallery import descriptor_set, no_junk, same_camera
from dinogrl_jax.retrieval.metrics import (
    bootstrap_intervals,
    both_directions,
    figure_values,
    one_direction,
    result_from_counts,
    result_from_matrix,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "components.npz")
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=20, deadline=None)


def golden_side(name):
    embedding = GOLDEN[f"metric_{name}"].transpose(0, 2, 1)
    return descriptor_set(embedding, GOLDEN[f"metric_{name}_pid"], GOLDEN[f"metric_{name}_cam"])


@pytest.mark.parametrize("rule, junk", [("vcm", same_camera), ("bupt", no_junk)])
@pytest.mark.parametrize("how", ["features", "matrix"])
def test_golden(rule, junk, how):
    query, gallery = golden_side("query"), golden_side("gallery")
    if how == "features":
        result = one_direction(query, gallery, junk)
    else:
        result = result_from_matrix(GOLDEN["metric_distance"], *masks(query, gallery, junk))
    # both are float64 means of the same ranks
    np.testing.assert_allclose(result.cmc, GOLDEN[f"metric_{rule}_cmc"], rtol=1e-12)
    np.testing.assert_allclose(result.mAP, GOLDEN[f"metric_{rule}_map"], rtol=1e-12)
    np.testing.assert_allclose(result.mINP, GOLDEN[f"metric_{rule}_minp"], rtol=1e-12)
    assert result.queries == GOLDEN[f"metric_{rule}_valid_queries"]
    assert len(result.skipped) == 60 - result.queries


def judged(query, gallery, camera_filter, name="part_euclidean"):
    distance = oracle.distances(name, query.embedding, gallery.embedding)
    ids = query.identity, query.camera, gallery.identity, gallery.camera
    return oracle.figures(distance, *ids, camera_filter=camera_filter)


def assert_agree(result, expected):
    cmc, mean_ap, mean_inp, valid, per_query = expected
    # float64 sums of the same fractions in another order
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-13)
    np.testing.assert_allclose([result.mAP, result.mINP], [mean_ap, mean_inp], rtol=1e-13)
    got = np.stack([result.ap, result.inp, result.first], 1)
    np.testing.assert_allclose(got, per_query, rtol=1e-13)
    assert result.queries == valid == result.valid.sum()


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@few
@given(seeds, st.booleans(), st.booleans())
def test_oracle(seed, integers, camera_filter):
    query, gallery = drawn(seed, integers=integers)
    junk = same_camera if camera_filter else no_junk
    there, back = both_directions(query, gallery, junk)
    assert_agree(there, judged(query, gallery, camera_filter))
    assert_agree(back, judged(gallery, query, camera_filter))
    assert_same(there, one_direction(query, gallery, junk))


@pytest.mark.parametrize("name", ["euclidean", "squared_euclidean", "cosine", "dot"])
def test_oracle_of_other_distances(name):
    query, gallery = drawn(1, 40, 80)
    result = one_direction(query, gallery, distance=name)
    assert_agree(result, judged(query, gallery, True, name))


@few
@given(seeds, st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_matrix_against_oracle(seed, integers, dtype):
    query, gallery = drawn(seed)
    distance = np.random.default_rng(seed).uniform(0, 5, (13, 37)).astype(dtype)
    distance = np.floor(distance) if integers else distance
    ids = query.identity, query.camera, gallery.identity, gallery.camera
    result = result_from_matrix(distance, *masks(query, gallery, same_camera))
    assert_agree(result, oracle.figures(distance, *ids))


@few
@given(seeds)
def test_gallery_order_does_not_matter_without_ties(seed):
    query, gallery = drawn(seed)
    order = np.random.default_rng(seed).permutation(37)
    shuffled = descriptor_set(*(x[order] for x in (gallery[0], *gallery[2:])))
    assert_same(one_direction(query, gallery), one_direction(query, shuffled))


def test_ties_go_to_the_earlier_entry():
    query = descriptor_set(np.zeros((1, 4), np.float32), np.array([7]))
    gallery = np.ones((5, 4), np.float32)
    for place in range(5):
        identity = np.where(np.arange(5) == place, 7, 0)
        assert one_direction(query, descriptor_set(gallery, identity), no_junk).first == [place + 1]


@pytest.mark.parametrize("offset", [0, 3000])
def test_neighbours_that_float32_cannot_tell_apart(offset):
    """A gallery on a sphere, all at the same distance but for float32 rounding of its points."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 64))
    points *= 100 / np.linalg.norm(points, axis=1, keepdims=True)
    query = descriptor_set(np.full((3, 64), offset, np.float32), np.array([0, 1, 2]))
    gallery = descriptor_set((points + offset).astype(np.float32), rng.integers(0, 4, 200))
    assert_agree(one_direction(query, gallery, no_junk), judged(query, gallery, False))


def test_perfect_and_worst_ranking():
    place = np.arange(10)[None].astype(np.float32)
    none = np.zeros((1, 10), bool)
    perfect = result_from_matrix(place, place < 3, none)
    assert (perfect.mAP, perfect.mINP, perfect.cmc[0]) == (1, 1, 1)
    worst = result_from_matrix(place, place >= 7, none)
    assert worst.mAP == pytest.approx((1 / 8 + 2 / 9 + 3 / 10) / 3, abs=1e-15)
    assert worst.mINP == pytest.approx(3 / 10, abs=1e-15)
    assert list(worst.cmc) == [0.0] * 7 + [1.0] * 13


def test_by_hand():
    """Matches at ranks 1 and 4; a query without matches is skipped and listed."""
    negatives, match = np.array([[2, 0, 9], [0, 0, 0]]), np.array([[1, 1, 0], [0, 0, 0]], bool)
    result = result_from_counts(negatives, match, gallery=6, max_rank=3)
    assert result.mAP == (1 + 2 / 4) / 2
    assert result.mINP == 2 / 4
    assert (list(result.cmc), list(result.first), list(result.skipped)) == ([1, 1, 1], [1, 0], [1])
    assert (result.queries, result.gallery) == (1, 6)


@pytest.mark.parametrize("size", [7, 16, 64])
def test_blocks_do_not_matter(size):
    query, gallery = drawn(2, 50, 130)
    for a, b in zip(
        both_directions(query, gallery), both_directions(query, gallery, size=size), strict=True
    ):
        assert_same(a, b)


def test_jit_does_not_matter():
    query, gallery = drawn(3, 5, 9)

    def result():
        distance = distance_matrix("part_euclidean", query.embedding, gallery.embedding)
        return result_from_matrix(distance, *masks(query, gallery, same_camera))

    with jax.disable_jit():
        plain = result()
    assert_same(plain, result())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_undecided_pairs_one_by_one_or_all_at_once(share, monkeypatch):
    monkeypatch.setattr(search, "ONE_BY_ONE", share)
    query, gallery = drawn(9, integers=True)
    assert_agree(one_direction(query, gallery), judged(query, gallery, True))


EIGHT = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
from dinogrl_jax.retrieval.metrics import both_directions
from sets import drawn
assert jax.device_count() == 8
there, back = (r._asdict() for r in both_directions(*drawn(2, 50, 130), size=48))
np.savez(
    sys.argv[2],
    **{f"0_{k}": v for k, v in there.items()},
    **{f"1_{k}": v for k, v in back.items()})
"""


def test_eight_devices_do_not_matter(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", EIGHT, str(Path(__file__).parents[1]), str(tmp_path / "r.npz")]
    subprocess.run(command, env=os.environ | flags, check=True)
    stored = np.load(tmp_path / "r.npz")
    for i, result in enumerate(both_directions(*drawn(2, 50, 130))):
        assert_same(result, [stored[f"{i}_{field}"] for field in result._fields])


def test_gallery_from_a_file(tmp_path):
    query, gallery = drawn(4, 20, 60)
    np.save(tmp_path / "g.npy", gallery.embedding)
    mapped = gallery._replace(embedding=np.load(tmp_path / "g.npy", mmap_mode="r"))
    assert_same(one_direction(query, gallery), one_direction(query, mapped, size=16))


def test_bootstrap():
    result = one_direction(*drawn(5, 200, 100))
    values = figure_values(result)
    intervals = bootstrap_intervals(values, samples=2000)
    assert intervals == bootstrap_intervals(values, samples=2000)
    for name, value in (("mAP", result.mAP), ("mINP", result.mINP), ("rank5", result.cmc[4])):
        assert values[name].mean() == pytest.approx(value)
        assert intervals[name].low < value < intervals[name].high
    # the normal approximation, which 200 queries allow to a tenth
    width = 2 * 1.96 * result.ap[result.valid].std() / result.queries**0.5
    assert intervals["mAP"].high - intervals["mAP"].low == pytest.approx(width, rel=0.1)


def test_a_bootstrap_is_made_in_blocks_of_the_same_samples(monkeypatch):
    values = {"mAP": np.random.default_rng(0).random(300)}
    whole = bootstrap_intervals(values)
    monkeypatch.setattr(metrics, "MOST_TIMES", 300 * 7)
    assert bootstrap_intervals(values)["mAP"] == pytest.approx(whole["mAP"], rel=1e-12)


def test_a_bootstrap_of_many_queries_needs_little_memory():
    values = {name: np.random.default_rng(0).random(60_000) for name in ("mAP", "mINP")}
    tracemalloc.start()
    bootstrap_intervals(values, samples=100)  # 96 MB with a copy, if they were made at once
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def spoiled(change):
    query, gallery = drawn(6)
    return change(query, gallery)


def with_nan(side):
    embedding = side.embedding.copy()
    embedding[[5, 9], 1, 2] = np.nan
    return side._replace(embedding=embedding)


BAD = {
    "gallery tracklet 5": lambda q, g: one_direction(q, with_nan(g)),
    "query tracklet 5": lambda q, g: one_direction(with_nan(q), g),
    "gallery set is empty": lambda q, g: one_direction(
        q, descriptor_set(np.zeros((0, 2, 8)), np.zeros(0))
    ),
    "query set is empty": lambda q, g: one_direction(
        descriptor_set(np.zeros((0, 2, 8)), np.zeros(0)), g
    ),
    r"\(2, 8\), gallery descriptors \(2, 7\)": lambda q, g: one_direction(
        q, g._replace(embedding=g.embedding[:, :, :7])
    ),
    "identity has shape": lambda q, g: descriptor_set(g.embedding, np.zeros(3)),
    "camera has shape": lambda q, g: descriptor_set(g.embedding, g.identity, np.zeros(3)),
    "none of 13 queries": lambda q, g: one_direction(q._replace(identity=q.identity + 100), g),
    "distance 'x'": lambda q, g: one_direction(q, g, distance="x"),
    "row 0 of the distance matrix": lambda q, g: result_from_matrix(
        np.full((1, 2), np.nan), np.ones((1, 2), bool), np.zeros((1, 2), bool)
    ),
    "disagree": lambda q, g: result_from_matrix(
        np.ones((1, 2)), np.ones((2, 2), bool), np.zeros((1, 2), bool)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(InputError, match=message) as error:
        spoiled(BAD[message])
    assert "\n" not in str(error.value)


def test_one_tracklet_gallery():
    query, gallery = drawn(7)
    one = descriptor_set(gallery.embedding[:1], query.identity[:1], query.camera[:1] + 1)
    result = one_direction(query, one)
    assert result.mAP == 1 and set(result.skipped) == set(
        np.flatnonzero((query.identity != query.identity[0]) | (query.camera == one.camera))
    )

"""Descriptors of any origin, scored by every method against plain NumPy."""

import numpy as np
import oracle
import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import metrics, scoring


def columns(n=70, seed=0, **changed):
    rng = np.random.default_rng(seed)
    return {
        "identity": rng.integers(0, 8, n),
        "camera": rng.integers(0, 3, n),
        "modality": rng.choice(["visible", "infrared"], n),
        "role": np.full(n, "both"),
    } | changed


def descriptors(n=70, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 4, 8)).astype(np.float32)


def expected(distance, rows, other, c):
    ids = (c["identity"][rows], c["camera"][rows], c["identity"][other], c["camera"][other])
    return oracle.figures(distance, *ids)


@pytest.mark.parametrize("rerank", scoring.RERANKINGS)
def test_against_the_oracle(rerank):
    c, embedding = columns(), descriptors()
    halves = descriptors(seed=2), descriptors(seed=3)
    method = scoring.ScoringOptions(rerank=rerank)
    found = scoring.evaluation_of(embedding, c, method, halves)
    assert list(found.results) == ["visible_to_infrared", "infrared_to_visible"]
    for name, result in found.results.items():
        rows, other = (np.flatnonzero(c["modality"] == m) for m in name.split("_to_"))

        def all_pairs(a, b=None, rows=rows, other=other):
            x = np.concatenate([a[rows], (a if b is None else b)[other]])
            return oracle.distances("part_euclidean", x, x)

        q = len(rows)
        whole = all_pairs(embedding)
        distance = whole[:q, q:]
        if rerank == "k_reciprocal":
            distance = oracle.k_reciprocal(whole, q, 20, 6, 0.3)
        if rerank == "temporal":
            distance = 0.8 * distance + 0.2 * oracle.k_reciprocal(whole, q, 5, 3, 0.0)
            for a, b in (halves, halves[::-1]):
                distance = distance + 0.1 * oracle.k_reciprocal(all_pairs(a, b), q, 5, 3, 0.0)
        cmc, mean_ap, mean_inp, valid, per_query = expected(distance, rows, other, c)
        # random distances are further apart than float32 re-ranking errs
        np.testing.assert_allclose(result.ap, per_query[:, 0], rtol=1e-12)
        np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
        row = scoring.direction_figures(found)[name]
        assert (row["queries"], row["gallery"]) == (valid, len(other))
        assert row["mAP"] == pytest.approx(mean_ap) and row["mINP"] == pytest.approx(mean_inp)
        assert row["rank5"] == result.cmc[4]


@pytest.mark.parametrize("camera_filter", [True, False])
def test_chance_is_what_random_orders_reach(camera_filter):
    c = columns(40)
    method = scoring.ScoringOptions(camera_filter=camera_filter)
    found = scoring.evaluation_of(descriptors(40), c, method)
    direction = found.directions["visible_to_infrared"]
    match, junk = scoring.match_and_junk_masks(direction)
    rng = np.random.default_rng(0)
    random = [
        metrics.result_from_matrix(rng.random(match.shape, np.float32), match, junk).cmc[0]
        for _ in range(300)
    ]
    # the mean of 300 · about 20 draws of a chance near 0.13
    assert scoring.chance_rank1(direction) == pytest.approx(np.mean(random), abs=0.02)


def test_what_results_say_beside_the_figures():
    c = columns()
    c["identity"][:3] = 100 + np.arange(3)
    found = scoring.evaluation_of(descriptors(), c, scoring.ScoringOptions())
    about = scoring.evaluation_facts(found)
    assert about["camera_filter"] is True and about["distance"] == "part_euclidean"
    skipped = sum(about["skipped"].values(), [])
    assert {0, 1, 2} <= set(skipped)
    for name, result in found.results.items():
        for row in about["skipped"][name]:
            same = (c["identity"] == c["identity"][row]) & (c["modality"] != c["modality"][row])
            assert not (same & (c["camera"] != c["camera"][row])).any()
        assert len(about["skipped"][name]) == len(result.ap) - result.queries
        low, high = about["intervals"][name]["mAP"]
        assert low < result.mAP < high
    lines = scoring.skipped_lines(about)
    assert lines and f"{len(about['skipped']['visible_to_infrared'])} queries" in lines[0]


def test_headlines():
    results = {"protocol": "vcm", "camera_filter": False, "distance": "cosine", "rerank": "none"}
    assert scoring.headline(results | {"features": "f.npz"}) == (
        "vcm, f.npz; cosine, without camera filter"
    )
    results |= {"camera_filter": True, "rerank": "k_reciprocal", "checkpoint": "best", "step": 7}
    assert scoring.headline(results) == (
        "vcm, best checkpoint, step 7; cosine, with camera filter, k_reciprocal re-ranking"
    )


def test_one_tracklet_galleries():
    c = columns(20)
    c["modality"] = np.array(["infrared"] + ["visible"] * 19)
    c["camera"][0] = 9
    c["identity"][1] = c["identity"][0]
    c["role"] = np.array(["gallery"] + ["query"] * 19)
    result = scoring.evaluation_of(descriptors(20), c, scoring.ScoringOptions()).results
    assert list(result) == ["visible_to_infrared"]
    assert result["visible_to_infrared"].mAP == 1
    assert result["visible_to_infrared"].gallery == 1


BAD = {
    "re-ranking 'x': choose one of none, k_reciprocal": (scoring.ScoringOptions(rerank="x"), {}),
    "choose another than dot": (scoring.ScoringOptions(rerank="k_reciprocal", distance="dot"), {}),
    "embedding_first and embedding_second": (scoring.ScoringOptions(rerank="temporal"), {}),
    "distance 'x'": (scoring.ScoringOptions(distance="x"), {}),
    "re-ranking 8 tracklets": (scoring.ScoringOptions(rerank="k_reciprocal"), {"n": 8}),
    "none of": (scoring.ScoringOptions(), {"identity": np.arange(70)}),
    "cameras mix numbers and names: tracklet 0 has '1', tracklet 1 has 'D1'": (
        scoring.ScoringOptions(),
        {"camera": np.array(["1", "D1"] * 35)},
    ),
    "tracklet 1 has no camera.*--camera_filter off": (
        scoring.ScoringOptions(),
        {"camera": np.array([1, -1] * 35)},
    ),
    "no infrared tracklet has the role": (
        scoring.ScoringOptions(),
        {"modality": np.full(70, "visible")},
    ),
    'no tracklet has the role "query"': (scoring.ScoringOptions(), {"role": np.full(70, "train")}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    method, changed = BAD[message]
    c = columns(**changed)
    with pytest.raises(InputError, match=message) as caught:
        scoring.evaluation_of(descriptors(len(c["identity"])), c, method)
    assert "\n" not in str(caught.value)

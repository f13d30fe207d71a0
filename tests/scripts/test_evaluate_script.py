"""scripts/evaluate.py on descriptors of other code."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest
import small
from commands import refusal, script

from dinogrl_jax.retrieval import scoring


@pytest.fixture
def features(tmp_path):
    """Some identities that are easy to tell apart, one without a match, one unknown."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(12), 5)
    identity[0], identity[1] = 77, -1
    embedding = rng.standard_normal((60, 6)) + 2 * rng.standard_normal((100, 6))[identity]
    columns = {
        "embedding": embedding.astype(np.float16),
        "identity": identity,
        "camera": rng.integers(0, 4, 60),
        "modality": rng.permuted(np.array(["visible", "infrared"] * 30)),
    }
    np.savez(tmp_path / "theirs.npz", **columns)
    return tmp_path / "theirs.npz", columns


def test_features_get_figures_and_a_report(features, tmp_path):
    path, columns = features
    options = ("--protocol", "bupt-full", "--distance", "cosine", "--rerank")
    done = script("evaluate.py", "--features", path, *options, "--out", tmp_path / "out")
    assert done.status == 0, done.errors
    results = json.loads((tmp_path / "out/results.json").read_text())
    embedding = columns.pop("embedding")
    columns["identity"][1] = 1000  # nobody else is
    columns["role"] = np.full(60, "both")
    method = scoring.ScoringOptions("bupt-full", False, "cosine", "k_reciprocal")
    found = scoring.evaluation_of(embedding, columns, method)
    for direction, row in scoring.direction_figures(found).items():
        assert results[direction] == pytest.approx(row)
    assert results | scoring.evaluation_facts(found) == results
    assert results["features"] == "theirs.npz"
    assert sorted(sum(results["skipped"].values(), [])) == [0, 1]
    assert "bupt-full, theirs.npz; cosine, without camera filter, k_reciprocal" in done.output
    assert "1 queries without a match are left out: tracklets 0" in done.output
    v = results["verification"]
    assert [t["false_accepts"] for t in v["thresholds"]] == [0.1, 0.01, 0.001, 0.0001]
    assert 0 < v["eer"] < 0.5 < v["auc"] < 1 and v["roc"][-1][0] == 1
    assert {"dinogrl_jax", "jax", "flax", "numpy"} <= results["versions"].keys()
    assert datetime.fromisoformat(results["date"]).utcoffset() == timedelta(0)
    report = (tmp_path / "out/report.html").read_text()
    assert "Ranked lists" in report and "unknown" in report


def test_without_out_and_without_a_report(features):
    path, _ = features
    done = script("evaluate.py", "--features", path, "--camera_filter", "off", "--noreport")
    assert done.status == 0, done.errors
    folder = path.with_suffix("")
    assert sorted(p.name for p in folder.iterdir()) == ["queries.json", "results.json"]
    assert json.loads((folder / "results.json").read_text())["camera_filter"] is False


def test_refusals(features, tmp_path):
    path, columns = features
    both = ("--features", path, "--config", small.PATH)
    assert "leave one out" in refusal("evaluate.py", *both)
    assert "leave one out" in refusal("evaluate.py", "--features", path, "--variants")
    filtered = ("--features", path, "--camera_filter", "maybe")
    assert "'maybe': protocol, on, off" in refusal("evaluate.py", *filtered)
    alone = {**columns, "identity": np.arange(60)}
    np.savez(tmp_path / "alone.npz", **alone)
    message = refusal("evaluate.py", "--features", tmp_path / "alone.npz")
    assert "none of 30 queries has a match" in message
    assert not (tmp_path / "alone").exists()

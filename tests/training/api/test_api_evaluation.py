"""`dinogrl_jax.evaluate` gives what scripts/evaluate.py writes."""

import json

import numpy as np
import pytest
from in_process import done  # noqa: F401

import dinogrl_jax
from dinogrl_jax.interface.errors import InputError


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    identity = np.arange(60) % 15
    centre = rng.standard_normal((15, 4, 6))[identity]
    return {
        "embedding": (centre + 0.5 * rng.standard_normal(centre.shape)).astype(np.float32),
        "identity": identity,
        "camera": rng.integers(0, 4, 60),
        "modality": np.where(np.arange(60) < 30, "visible", "infrared"),
    }


def test_it_is_the_script(columns, tmp_path, done):  # noqa: F811
    np.savez(tmp_path / "f.npz", **columns)
    words = ("--features", tmp_path / "f.npz", "--distance", "cosine", "--out", tmp_path / "out")
    status, _, errors = done("evaluate", *words, "--noreport")
    assert status == 0, errors
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    for features in (columns, tmp_path / "f.npz"):
        results = json.loads(json.dumps(dinogrl_jax.evaluate(features, distance="cosine")))
        assert {key: written[key] for key in results} == results
        assert results["visible_to_infrared"]["queries"] > 20
        assert results["verification"]["thresholds"][0]["false_accepts"] == 0.1


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({"identity": None}, {}, "no array 'identity'"),
        ({"modality": np.arange(60)}, {}, "modality is int64"),
        ({"embedding": np.full((60, 4), np.nan)}, {}, "NaN"),
        ({"camera": np.arange(3)}, {}, "camera has shape"),
        ({}, {"protocol": "theirs"}, "protocol 'theirs'"),
        ({}, {"distance": "far"}, "distance 'far'"),
        ({}, {"rerank": "maybe"}, "re-ranking 'maybe'"),
        ({}, {"camera_filter": "maybe"}, "'maybe'"),
    ],
)
def test_refusals(columns, changed, options, said):
    features = {k: v for k, v in {**columns, **changed}.items() if v is not None}
    with pytest.raises(InputError, match=said):
        dinogrl_jax.evaluate(features, **options)

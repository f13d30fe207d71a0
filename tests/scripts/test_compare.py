"""scripts/compare.py on features, and on what scripts/evaluate.py says of them."""

import numpy as np
import pytest
from commands import refusal, script


@pytest.fixture
def features(tmp_path):
    """Two features files of the same tracklets."""
    rng = np.random.default_rng(0)
    identity = np.arange(48) // 4
    who = rng.standard_normal((12, 6))[identity]
    for name, noise in (("base", 1.5), ("new", 0.3)):
        np.savez(
            tmp_path / f"{name}.npz",
            embedding=(who + noise * rng.standard_normal((48, 6))).astype(np.float32),
            identity=identity,
            camera=np.arange(48) % 3,
            modality=np.array(["visible", "infrared"] * 24),
        )
    return tmp_path


def test_a_table_and_a_file(features):
    """A features file is scored as evaluate.py scores it, whose folder is compared as well."""
    done = script("evaluate.py", "--features", features / "base.npz", "--noreport")
    assert done.status == 0, done.errors
    out = features / "compare.html"
    places = (features / "base", features / "new.npz", features / "base.npz")
    done = script("compare.py", *places, "--out", out)
    assert done.status == 0 and not done.errors, done.errors
    assert "new − " in done.output and "visible to infrared, 24 queries × 24" in done.output
    assert "evaluation.distance" not in out.read_text()
    (rank1,) = [x for x in done.output.splitlines()[:4] if x.startswith("rank1")]
    assert "+0.00 [+0.0, +0.0]" in rank1

    done = script("compare.py", *places[:2], "--distance", "cosine", "--out", out)
    assert done.status == 0, done.errors
    row = "evaluation.distance</th><td>part_euclidean</td><td>cosine</td></tr>"
    assert row in out.read_text()


def test_refusals(features):
    out = features / "compare.html"
    message = refusal("compare.py", features / "base.npz", features, "--out", out)
    assert "holds 2 features files: name one" in message
    assert "name 2 to 8 runs" in refusal("compare.py", features / "base.npz", "--out", out)
    (features / "empty").mkdir()
    message = refusal("compare.py", features / "base.npz", features / "empty", "--out", out)
    assert f"run dinogrl_jax evaluate --workdir {features}/empty" in message
    message = refusal("compare.py", features / "base.npz", "a" * 300, "--out", out)
    assert "cannot be read: File name too long" in message
    assert not out.exists()


def test_no_input_is_lost(features):
    """Neither a features file to --out, nor a run's results to features of its name."""
    base, new = features / "base.npz", features / "new.npz"
    before = base.read_bytes()
    message = refusal("compare.py", new, base, "--out", features / "." / "base.npz")
    assert "is one of the runs, and would be lost" in message and base.read_bytes() == before
    (features / "base").mkdir()
    (features / "base" / "config.json").write_text("{}")
    message = refusal("evaluate.py", "--features", base)
    assert "base is a run, whose results stay" in message
    assert [path.name for path in (features / "base").iterdir()] == ["config.json"]
    message = refusal("evaluate.py", "--features", base, "--out", new)
    assert "new.npz is no folder: choose another --out" in message


def test_a_features_file_that_cannot_be_scored_is_named(features):
    with np.load(features / "new.npz") as file:
        columns = {name: file[name] for name in file if name != "camera"}
    np.savez(features / "blind.npz", **columns)
    message = refusal("compare.py", features / "base.npz", features / "blind.npz")
    assert "blind.npz: the camera filter needs" in message


def test_queries_can_be_named_themselves(features):
    script("evaluate.py", "--features", features / "base.npz", "--noreport")
    places = (features / "base" / "queries.json", features / "new.npz")
    done = script("compare.py", *places, "--out", features / "compare.html")
    assert done.status == 0, done.errors

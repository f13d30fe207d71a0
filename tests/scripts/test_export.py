"""scripts/export.py on a small model."""

import json
import re

import jax
import numpy as np
import pytest
import small

from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.export import onnx_model
from dinogrl_jax.training import checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stablehlo", "onnx"])
def test_what_is_exported_is_the_model(kind, done, refused, tmp_path):
    """Its own figures say so, and a folder with content is refused."""
    if kind == "onnx":
        pytest.importorskip("jax2onnx", reason=onnx_model.INSTALL)
    config = small.get_config()
    cameras = list(small.FACTS.cameras)
    metadata = checkpoint.Metadata(config, list(range(small.IDENTITIES)), cameras, 7)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    variables = jax.device_get(initial_variables(small.model(config), config))
    checkpoint.write_checkpoint(tmp_path / "run/checkpoints", variables, metadata)
    words = ("export", "--checkpoint", tmp_path / "run", "--out", tmp_path / "out")
    words += ("--format", kind)
    status, output, errors = done(*words)
    assert status == 0, errors
    found = re.findall(r"at most (\S+) of a descriptor's length, by (\S+) where", output)
    assert len(found) == 2
    for same, resized in found:
        assert float(same) < 1e-5  # of float32, in another order of sums
        assert float(resized) < 0.05  # values of frames that Pillow rounds otherwise, by 1 of 255
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert (about["method"], about["step"], about["frames"]) == (small.NAME, 7, config.data.frames)
    if kind == "stablehlo":
        with np.load(tmp_path / "out/parameters.npz") as parameters:
            assert len(parameters.files) == len(jax.tree.leaves(variables))
    assert "exists: choose another --out" in refused(*words)

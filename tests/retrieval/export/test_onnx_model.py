"""Models as ONNX: what onnxruntime computes, without JAX and without the package."""

import subprocess
import sys
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny_method
from flax import linen as nn
from jax import lax

from dinogrl_jax import methods
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.export import onnx_model
from dinogrl_jax.retrieval.export.preprocessing import normalised_frames
from dinogrl_jax.retrieval.export.program import descriptor_function, tracklet_function

ALONE = """
import runpy, sys
import numpy as np
sys.modules["dinogrl_jax"] = sys.modules["jax"] = sys.modules["onnx"] = None
folder, modality, out = sys.argv[1:]
with np.load(f"{folder}/input.npz") as given:
    frames, cameras = given["frames"], given["cameras"]
model = runpy.run_path(f"{folder}/load.py")["load"](folder, modality)
np.savez(out, both=model(frames, cameras), one=model(frames[:1, :, ::2], cameras[:1]))
"""


class Model(nn.Module):
    """A row for each modality of a table, times a clip's mean value, plus its camera."""

    @nn.compact
    def __call__(self, clips: Clips, *, train: bool):
        table = self.param("table", nn.initializers.normal(), (2, 300))
        row = table[0 if clips.modalities == ("visible",) else 1]
        return clips.frames.mean((1, 2, 3, 4, 5))[:, None] * row + clips.camera.astype(jnp.float32)


def converter() -> None:
    """Skip a test where a package is missing: .ci/onnx installs them."""
    pytest.importorskip("onnxruntime", reason="pip install '.[onnx]'")
    pytest.importorskip("jax2onnx", reason=onnx_model.INSTALL)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("sizes", [(3, 3), (5, 1), (5, 4)])
def test_windows_by_shifted_arrays(sizes, strides):
    """Negative numbers too: nothing that is padded is ever the largest."""
    x = -jnp.asarray(np.random.default_rng(0).random((2, 9, 8, 3)), jnp.float32)
    padding = [(0, 0), *((size // 2, size // 2) for size in sizes), (0, 0)]
    dimensions, steps = (1, *sizes, 1), (1, *strides, 1)
    wanted = lax.reduce_window(x, -np.inf, lax.max, dimensions, steps, padding)
    options = {"window_dimensions": dimensions, "window_strides": steps, "padding": padding}
    np.testing.assert_array_equal(onnx_model.window_maxima(x, **options), wanted)


def test_a_function_keeps_its_values():
    def function(x):
        pooled = jax.checkpoint(lambda x: nn.max_pool(jnp.sin(x), (3, 3), padding="SAME"))(x)
        return jax.nn.gelu(nn.max_pool(pooled, (2, 2), (2, 2))), pooled.sum()

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4, 3)), jnp.float32)
    closed = jax.make_jaxpr(function)(x)
    evaluated = partial(onnx_model.evaluated, closed.jaxpr, closed.consts)
    assert "reduce_window_max" not in str(jax.make_jaxpr(evaluated)(x))
    for made, wanted in zip(evaluated(x), function(x), strict=True):
        np.testing.assert_array_equal(made, wanted)


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(onnx_model, "NEEDED", ("json", "no_such_package"))
    with pytest.raises(InputError, match="needs no_such_package: pip install"):
        onnx_model.needed_packages()


def test_a_model_needs_onnxruntime_alone(tmp_path):
    converter()
    config = tiny_method.get_config()
    method = ModuleType("tiny")
    method.descriptor = lambda output, config: output[:, None]
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, config.data.frames, 9, 5, 3)).astype(np.uint8)
    cameras = np.array([3, 8, 3], np.int32)
    np.savez(tmp_path / "input.npz", frames=frames, cameras=cameras)
    table = rng.random((2, 300)).astype(np.float32)
    variables = {"params": {"table": table}}
    about = {"versions": {}}
    onnx_model.write_model(tmp_path, method, Model(), variables, config, about)
    shared = (tmp_path / onnx_model.PARAMETERS).read_bytes()
    assert shared.count(table.tobytes()) == 1  # of both modalities
    for row, modality in enumerate(("visible", "infrared")):
        out = tmp_path / f"{modality}.npz"
        words = [sys.executable, "-c", ALONE, tmp_path, modality, out]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made = np.load(out)
        for name, given in (("both", frames), ("one", frames[:1, :, ::2])):
            size = config.data.height, config.data.width
            seen = [
                np.asarray(normalised_frames(jnp.asarray(x), *size)).mean((0, 1, 2)) for x in given
            ]
            wanted = np.array(seen).mean(1)[:, None] * table[row] + cameras[: len(given), None]
            assert made[name].shape == (len(given), 1, 300)
            # Of float32; where a pixel lies between two of 8 bits, one of 255.
            np.testing.assert_allclose(made[name][:, 0], wanted, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in methods.METHODS if name != small.NAME])
def test_other_methods_as_onnx(name):
    """Frames have the model's own size: what resizing changes is another test's."""
    converter()
    import onnxruntime

    config = small.get_config(name)
    method = methods.named(name)
    model = method.Model(config, small.FACTS)
    variables = jax.tree.map(jnp.asarray, initial_variables(model, config))
    arguments = method, model, config, "infrared"
    function = partial(tracklet_function(*arguments), variables)
    made = onnx_model.onnx_model(function, config.data.frames).SerializeToString()
    data, rng = config.data, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, data.frames, data.height, data.width, 3)).astype(np.uint8)
    cameras = np.array([1, 3, 1], np.int32)
    session = onnxruntime.InferenceSession(made)
    (found,) = session.run(None, {"frames": pixels, "cameras": cameras})
    wanted = np.asarray(jax.jit(descriptor_function(*arguments))(variables, pixels, cameras))
    errors = np.linalg.norm(found - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
    assert errors.max() < 1e-5  # of float32, in another order of sums

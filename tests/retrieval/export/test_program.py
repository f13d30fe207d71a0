"""Exported programs: what their loader gives, and that every method has one."""

import subprocess
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny_method
from flax import linen as nn

from dinogrl_jax import methods
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.retrieval.export.preprocessing import normalised_frames
from dinogrl_jax.retrieval.export.program import (
    PLATFORMS,
    descriptor_function,
    exported_program,
    write_program,
)

ALONE = """
import runpy, sys
import numpy as np
sys.modules["dinogrl_jax"] = sys.modules["flax"] = None
folder, modality, out = sys.argv[1:]
with np.load(f"{folder}/input.npz") as given:
    frames, cameras = given["frames"], given["cameras"]
model = runpy.run_path(f"{folder}/load.py")["load"](folder, modality)
both = model(frames, cameras)
one = model(frames[:1, :, ::2], cameras[:1])
np.savez(out, both=both, one=one)
"""


class Model(nn.Module):
    """A row for each modality of a table, times a clip's mean colour, plus its camera."""

    @nn.compact
    def __call__(self, clips: Clips, *, train: bool):
        table = self.param("table", nn.initializers.normal(), (2, 3))
        row = table[0 if clips.modalities == ("visible",) else 1]
        return clips.frames.mean((1, 2, 3, 4)) * row + clips.camera.astype(jnp.float32)


def test_a_program_needs_jax_alone(tmp_path):
    config = tiny_method.get_config()
    method = ModuleType("tiny")
    method.descriptor = lambda output, config: output[:, None]
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, config.data.frames, 9, 5, 3)).astype(np.uint8)
    cameras = np.array([3, 8, 3], np.int32)
    np.savez(tmp_path / "input.npz", frames=frames, cameras=cameras)
    table = rng.random((2, 3)).astype(np.float32)
    variables = {"params": {"table": table}}
    write_program(tmp_path, method, Model(), variables, config, {"method": "tiny"})
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
            wanted = np.array(seen) * table[row] + cameras[: len(given), None]
            assert made[name].shape == (len(given), 1, 3)
            np.testing.assert_allclose(made[name][:, 0], wanted, rtol=1e-5)  # of float32


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_a_program_for_any_number_of_tracklets(name):
    """Of its descriptors' shape, on all platforms; nothing is compiled here."""
    config = small.get_config(name)
    method = methods.named(name)
    model = method.Model(config, small.FACTS)
    variables = variable_shapes(model, config)
    function = descriptor_function(method, model, config, "infrared")
    made = exported_program(function, variables, config.data.frames)
    (shape,) = made.out_avals
    assert made.platforms == PLATFORMS and str(shape.shape[0]) == "b"
    assert shape.shape[1] == len(method.part_names(config)) and shape.dtype == np.float32
    assert len(made.in_avals) == len(jax.tree.leaves(variables)) + 2

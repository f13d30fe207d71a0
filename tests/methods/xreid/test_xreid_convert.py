"""X-ReID's published file in and out, in small; and CLIP's file as a start."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_states
import torch
from commands import ROOT, script

from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import default, xreid
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.training.start import with_published_weights
from dinogrl_jax.weights.conversion import to_state, to_variables
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.rules import Rule

MANIFEST = json.loads((ROOT / "tests/golden/xreid_manifest.json").read_text())["best_model.pth.tar"]


@pytest.fixture(scope="module")
def config():
    return small.get_config("xreid")


@pytest.fixture(scope="module")
def variables(config):
    """With empty memories, which no file has."""
    made = small.random_variables(config)
    return {**made, "memory": jax.tree.map(np.zeros_like, made["memory"])}


@pytest.fixture
def file(config, variables, tmp_path):
    """The small model's file, as torch.save writes it."""
    ((state, _),) = released_states(xreid, variables, config).values()
    torch.save({k: torch.tensor(np.array(v)) for k, v in state.items()}, tmp_path / "released.tar")
    return str(tmp_path / "released.tar")


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_all_entries_of_the_manifest():
    """Each has one rule, each variable is filled, and the way back gives all 249 of the manifest.

    Names and shapes are what load_state_dict(strict=True) asks for.
    """
    config = default("xreid")
    shapes = variable_shapes(xreid.Model(config, Facts(500, tuple(range(1, 13)))), config)
    shapes = {name: tree for name, tree in shapes.items() if name != "memory"}
    (file,) = xreid.released_files(config).values()
    assert sorted(file.modules) == sorted(shapes["params"])
    state = {
        key: np.broadcast_to(np.int64(0) if key.endswith("tracked") else np.float32(0), shape)
        for key, shape in MANIFEST
    }
    made, report = to_variables(state, file.rules, shapes, source_name=file.name)
    assert len(report.moves) == len(MANIFEST) == 249
    back, _ = to_state(made, file.rules)
    entries = {key: (array.shape, array.dtype) for key, array in state.items()}
    assert {key: (array.shape, array.dtype) for key, array in back.items()} == entries
    assert xreid.released_facts({"model": state}, config) == Facts(500, tuple(range(1, 13)))


def test_what_the_published_code_trains_is_what_is_trained_here():
    """The names that had a gradient, those that had none, and the frozen ones, each by itself."""
    golden = np.load(ROOT / "tests/golden/xreid_train.npz")
    config = default("xreid")
    (file,) = xreid.released_files(config).values()

    def paths(names: str) -> list[str]:
        keys = (str(name).partition(":")[2] for name in golden[names])
        rules = [next(r for r in file.rules if r.match_key(key) is not None) for key in keys]
        return [type(rule) is Rule for rule in rules]

    assert all(paths("grad_names")) and not any(paths("no_grad_names"))
    frozen = dict(zip(golden["frozen_names"].tolist(), paths("frozen_names"), strict=True))
    unused = {name.partition(":")[2] for name, used in frozen.items() if not used}
    assert unused == {f"{n}.bias" for n in ("bottleneck_local", "bn_TSM_tp1", "bn_TSM_frame1")}


def test_small_model_there_and_back(config, variables, file):
    made, facts, _ = released_model(xreid, {"model": file}, config)
    assert facts == small.FACTS
    assert_same(made, variables)
    ((state, _),) = released_states(xreid, made, config).values()
    saved = torch.load(file, weights_only=True)
    assert saved.keys() == state.keys()
    for key, tensor in saved.items():
        np.testing.assert_array_equal(tensor.numpy(), state[key])


def test_a_file_of_several_gpus_is_the_same(config, variables, file, tmp_path):
    """torch.nn.DataParallel puts `module.` in front of every name."""
    state = {f"module.{key}": value for key, value in torch_files.read(file).items()}
    torch_files.write(tmp_path / "parallel.tar", state)
    made, facts, _ = released_model(xreid, {"model": str(tmp_path / "parallel.tar")}, config)
    assert facts == small.FACTS
    assert_same(made, variables)


def test_an_export_has_what_nothing_reads(config, variables):
    """The second interaction and its heads, as the published code draws them and leaves them."""
    ((state, _),) = released_states(xreid, variables, config).values()
    width = config.model.clip.width
    for name in ("bottleneck_local", "bn_TSM_tp1", "bn_TSM_frame1"):
        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        for key, value in values.items():
            np.testing.assert_array_equal(state[f"{name}.{key}"], np.full(width, value))
        assert state[f"{name}.num_batches_tracked"] == 0
    for name in ("frame0", "tp1", "frame1"):
        kernel = state[f"classifier_TSM_{name}.weight"]
        assert kernel.shape == (small.IDENTITIES, width) and 0.0005 < kernel.std() < 0.0015
    block = {k: x for k, x in state.items() if k.startswith("TSM_temp.")}
    assert len(block) == 15
    for key, value in block.items():
        limit = (4 * width if "fc2" in key else width) ** -0.5
        if "norm" not in key:
            assert limit / 2 < np.abs(value).max() <= limit and value.dtype == np.float32


def changed(path, target, **changes):
    """A copy of a file with other arrays; None leaves a key out."""
    state = {**torch_files.read(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    torch_files.write(target, {key: value for key, value in state.items() if value is not None})
    return str(target)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"cv_embed": None}, "best_model.pth.tar (--model) has no cv_embed"),
        ({"cv_embed": np.zeros((3, 7), np.float32)}, "cv_embed: has shape (3, 7)"),
        ({"classifier_clip_temp__weight": None}, "has no classifier_clip_temp.weight"),
        ({"classifier_TSM_tp0__weight": None}, "classifier_TSM_tp0.weight: is missing"),
        ({"bn_TSM_tp0__running_var": None}, "bn_TSM_tp0.running_var: is missing"),
        ({"bottleneck_local__weight": np.zeros(7, np.float32)}, "bottleneck_local.weight"),
        ({"classifier_TSM_tp1__weight": np.zeros((9, 8), np.float32)}, "classifier_TSM_tp1"),
        ({"more": np.zeros(7, np.float32)}, "more: no rule takes it"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(config, file, tmp_path, change, named):
    path = changed(file, tmp_path / "bad.tar", **change)
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        released_model(xreid, {"model": path}, config)
    assert "bad.tar" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_other_people_and_cameras_brings_its_own(config, file, tmp_path):
    state = torch_files.read(file)
    fewer = {k: x[:3] for k, x in state.items() if k.startswith("classifier")}
    path = tmp_path / "other.tar"
    torch_files.write(path, {**state, **fewer, "cv_embed": state["cv_embed"][:2]})
    config = config.copy_and_resolve_references()
    config.model.cameras.first = 0
    made, facts, _ = released_model(xreid, {"model": str(path)}, config)
    assert facts == Facts(3, (0, 1))
    assert made["params"]["cameras"]["table"].shape[0] == 2
    assert made["memory"]["visible"].shape[0] == 3


@pytest.mark.parametrize("variant", [name for name in xreid.VARIANTS if "paper" not in name])
def test_ablations_have_files_of_what_they_have(config, variant, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.sii.on = "interactions" in variant
    config.model.prototypes.on = variant != "image tower"
    variables = small.random_variables(config)
    assert ("memory" in variables) == config.model.prototypes.on
    ((state, _),) = released_states(xreid, variables, config).values()
    torch_files.write(tmp_path / "model.tar", state)
    made, _, _ = released_model(xreid, {"model": str(tmp_path / "model.tar")}, config)
    assert_same(*({k: x[k] for k in ("params", "batch_stats")} for x in (made, variables)))


def test_clip_is_where_training_starts(config, tmp_path):
    """Its image tower; of the text tower nothing is used, and all else is random."""
    config, state = config.copy_and_resolve_references(), small_states.clip(depth=3, patch=16)
    config.model.clip.update({"patch": 16, "width": 8, "depth": 3, "heads": 2, "embedding": 4})
    torch_files.write(tmp_path / "clip.pt", state)
    config.pretrained.clip = str(tmp_path / "clip.pt")
    random = initial_variables(xreid.Model(config, small.FACTS), config)
    started, (line,) = with_published_weights(xreid, random, config)
    assert "CLIP: weights of" in line
    image = started["params"].pop("image")
    np.testing.assert_array_equal(image["projection"], state["visual.proj"])
    kernel = image["block0"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, state["visual.transformer.resblocks.0.mlp.c_fc.weight"].T)
    assert_same(started, {**random, "params": {k: random["params"][k] for k in started["params"]}})


def test_the_demo_starts_from_a_small_clip(tmp_path):
    """Its stand-in fits the configuration as it is, a file of other sizes does not."""
    config = read_config(str(ROOT / "configs/synthetic_xreid.py"))
    checked = checked_config(config)
    model = xreid.Model(checked, small.FACTS)
    random = initial_variables(model, checked)
    started, _ = with_published_weights(xreid, random, checked)
    positions = started["params"]["image"]["positional_embedding"]
    assert len(positions) == 1 + (64 // 8) * (32 // 8)
    assert checked.model.clip == config.model.clip
    clips = Clips(jnp.zeros((1, 1, 3, 64, 32, 3)), jnp.ones((1, 1), int), ("visible",))

    @jax.jit
    def descriptor(variables):
        return xreid.descriptor(model.apply(variables, clips, train=False), checked)

    assert descriptor(started).shape == (1, 1, 96 + 64 + 96)
    torch_files.write(tmp_path / "other.pth", small_states.clip(depth=3, patch=8, width=96))
    checked.pretrained.clip = str(tmp_path / "other.pth")
    with pytest.raises(InputError, match="model.clip.depth"):
        with_published_weights(xreid, random, checked)


def test_the_scripts_convert_both_ways(file, tmp_path):
    made, back = tmp_path / "made", tmp_path / "back"
    (tmp_path / "small_xreid.py").write_text(
        f"import sys\n\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        'import small\n\n\ndef get_config():\n    return small.get_config("xreid")\n'
    )
    given = ("--config", tmp_path / "small_xreid.py", "--out", made)
    done = script("convert.py", "--from", "xreid", "--model", file, *given)
    assert done.status == 0, done.errors
    done = script("convert.py", "--to", "torch", "--checkpoint", made, "--out", back)
    assert done.status == 0, done.errors
    saved = torch.load(file, weights_only=True)
    again = torch.load(back / "best_model.pth.tar", weights_only=True)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)

"""VLD's published file in and out, in small; and CLIP's file as a start."""

import json
import math
import re

import jax
import numpy as np
import pytest
import small
import small_states
import torch
from commands import ROOT, script

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import default, vld
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.training.start import starting_variables_of_file, with_published_weights
from dinogrl_jax.weights.conversion import to_state, to_variables
from dinogrl_jax.weights.files import torch_files

MANIFEST = json.loads((ROOT / "tests/golden/vld_manifest.json").read_text())["best_model.pth"]


@pytest.fixture(scope="module")
def config():
    return small.get_config("vld")


@pytest.fixture(scope="module")
def variables(config):
    return small.random_variables(config)


@pytest.fixture
def file(config, variables, tmp_path):
    """The small model's file, as torch.save writes it."""
    ((state, _),) = released_states(vld, variables, config).values()
    torch.save({k: torch.tensor(np.array(v)) for k, v in state.items()}, tmp_path / "released.pth")
    return str(tmp_path / "released.pth")


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_all_entries_of_the_manifest():
    """Each has one rule, each variable is filled, and the way back gives all 335 of the manifest.

    Names and shapes are what load_state_dict(strict=True) asks for.
    """
    config = default("vld")
    shapes = variable_shapes(vld.Model(config, Facts(500)), config)
    (file,) = vld.released_files(config).values()
    assert sorted(file.modules) == sorted(shapes["params"])
    state = {
        key: np.broadcast_to(np.int64(0) if key.endswith("tracked") else np.float32(0), shape)
        for key, shape in MANIFEST
    }
    made, report = to_variables(state, file.rules, shapes, source_name=file.name)
    assert len(report.moves) == len(MANIFEST) == 335
    back, _ = to_state(made, file.rules)
    entries = {key: (array.shape, array.dtype) for key, array in state.items()}
    assert {key: (array.shape, array.dtype) for key, array in back.items()} == entries


def test_small_model_there_and_back(config, variables, file):
    made, facts, _ = released_model(vld, {"model": file}, config)
    assert facts == Facts(small.IDENTITIES)
    assert_same(made, variables)
    ((state, _),) = released_states(vld, made, config).values()
    saved = torch.load(file, weights_only=True)
    assert saved.keys() == state.keys()
    for key, tensor in saved.items():
        np.testing.assert_array_equal(tensor.numpy(), state[key])


def test_an_export_has_what_nothing_reads(config, variables):
    """As a run of the published code that never read it would have left it."""
    ((state, _),) = released_states(vld, variables, config).values()
    np.testing.assert_allclose(state["logit_scale"], math.log(1 / 0.07))
    for name in ("weight", "bias"):
        norm = state[f"image_encoder.ln_post.{name}"]
        np.testing.assert_array_equal(state[f"ln_post2.{name}"], norm)
        assert not np.shares_memory(state[f"ln_post2.{name}"], norm)
    head = {k.partition(".")[2]: x for k, x in state.items() if k.startswith("classifier_proj_STP")}
    kernel = head.pop("classifier.weight")
    assert kernel.shape == (small.IDENTITIES, config.model.clip.embedding)
    assert kernel.dtype == np.float32 and 0.0005 < kernel.std() < 0.0015
    values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    assert head.keys() == {f"BN.{name}" for name in values}
    for name, value in values.items():
        assert (head[f"BN.{name}"] == value).all()


def changed(path, target, **changes):
    """A copy of a file with other arrays; None leaves a key out."""
    state = {**torch_files.read(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    torch_files.write(target, {key: value for key, value in state.items() if value is not None})
    return str(target)


def test_a_file_of_other_identities_brings_its_own(config, file, tmp_path):
    names = ("classifier", "classifier_proj", "classifier_STP", "classifier_proj_STP")
    state = torch_files.read(file)
    more = {f"{n}.classifier.weight": state[f"{n}.classifier.weight"][:3] for n in names}
    more |= {"prompt_learner.cls_ctx": state["prompt_learner.cls_ctx"][:3]}
    torch_files.write(tmp_path / "three.pth", {**state, **more})
    made, facts, _ = released_model(vld, {"model": str(tmp_path / "three.pth")}, config)
    assert facts == Facts(3)
    assert made["params"]["prompts"]["learned"].shape[0] == 3


@pytest.mark.parametrize(
    "change, named",
    [
        ({"prompt_learner__cls_ctx": np.zeros((4, 2, 8), np.float32)}, "prompt_learner.cls_ctx"),
        ({"prompt_embedding": np.zeros((6, 6, 8), np.float32)}, "prompt_embedding"),
        ({"prompt_embedding": None}, "prompt_embedding: is missing"),
        ({"classifier__classifier__weight": None}, "classifier.classifier.weight"),
        ({"ln_post2__weight": np.zeros(7, np.float32)}, "ln_post2.weight"),
        ({"classifier_proj_STP__classifier__weight": np.zeros((9, 6), np.float32)}, "proj_STP"),
        ({"more": np.zeros(7, np.float32)}, "more: no rule takes it"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(config, file, tmp_path, change, named):
    path = changed(file, tmp_path / "bad.pth", **change)
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        released_model(vld, {"model": path}, config)
    assert "bad.pth" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", vld.VARIANTS)
def test_ablations_have_files_of_what_they_have(config, variant, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.hub.on, config.model.prompts.on = variant != "image tower", "prompts" in variant
    variables = small.random_variables(config)
    ((state, _),) = released_states(vld, variables, config).values()
    torch_files.write(tmp_path / "model.pth", state)
    made, _, _ = released_model(vld, {"model": str(tmp_path / "model.pth")}, config)
    assert_same(made, variables)


def of_clip(config):
    """For the file of `small_states.clip`."""
    config = config.copy_and_resolve_references()
    clip = config.model.clip
    clip.update({"patch": 16, "width": 8, "depth": 3, "heads": 2, "embedding": 4})
    clip.text.update({"width": 6, "depth": 3, "heads": 2, "positions": 7})
    prompts = config.model.prompts
    prompts.ids, prompts.learned = small_states.CLIP_SENTENCE, (2, 3)
    return config


def test_clip_is_where_training_starts(config, tmp_path):
    """Both towers and the fixed words; the learned ones, the hub and its norm's copy are random."""
    config, state = of_clip(config), small_states.clip(depth=3, patch=16)
    torch_files.write(tmp_path / "clip.pt", state)
    config.pretrained.clip = str(tmp_path / "clip.pt")
    model = vld.Model(config, small.FACTS)
    random = initial_variables(model, config)
    started, (line,) = with_published_weights(vld, random, config)
    assert "CLIP: weights of" in line
    params, table = started["params"], state["token_embedding.weight"]
    np.testing.assert_array_equal(params["image"]["projection"], state["visual.proj"])
    np.testing.assert_array_equal(params["text"]["projection"], state["text_projection"])
    words = table[[*small_states.CLIP_SENTENCE, 0]]
    np.testing.assert_array_equal(params["prompts"]["prefix"][0], words[:2])
    np.testing.assert_array_equal(params["prompts"]["suffix"][0], words[4:])
    for name in ("hub", "aggregation", "classifier"):
        assert_same(params[name], random["params"][name])
    assert_same(params["prompts"]["learned"], random["params"]["prompts"]["learned"])
    assert_same(started["batch_stats"], random["batch_stats"])
    found, made, _ = starting_variables_of_file(vld, "clip", str(tmp_path / "clip.pt"), config)
    assert_same(found["params"]["image"], params["image"])
    assert made.model.clip.text.positions == 7


def test_the_scripts_convert_both_ways(config, variables, file, tmp_path):
    made, back = tmp_path / "made", tmp_path / "back"
    (tmp_path / "small_vld.py").write_text(
        f"import sys\n\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        'import small\n\n\ndef get_config():\n    return small.get_config("vld")\n'
    )
    given = ("--config", tmp_path / "small_vld.py", "--out", made)
    done = script("convert.py", "--from", "vld", "--model", file, *given)
    assert done.status == 0, done.errors
    done = script("convert.py", "--to", "torch", "--checkpoint", made, "--out", back)
    assert done.status == 0, done.errors
    saved = torch.load(file, weights_only=True)
    again = torch.load(back / "best_model.pth", weights_only=True)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)

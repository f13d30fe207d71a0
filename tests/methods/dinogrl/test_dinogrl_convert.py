"""DinoGRL's published files in and out, in small."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import torch
from commands import ROOT, refusal, script
from small import IDENTITIES

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import default, dinogrl
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.checkpoint import checkpoints_of
from dinogrl_jax.weights.conversion import report_lines, to_state, to_variables
from dinogrl_jax.weights.files import torch_files

MANIFEST = json.loads((ROOT / "tests/golden/dinogrl_manifest.json").read_text())


@pytest.fixture(scope="module")
def config():
    return small.get_config()


@pytest.fixture(scope="module")
def variables(config):
    return small.random_variables(config)


@pytest.fixture(scope="module")
def files(config, variables, tmp_path_factory):
    """The three files of the small model, by role, as torch.save writes them."""
    folder, paths = tmp_path_factory.mktemp("released"), {}
    states = released_states(dinogrl, variables, config)
    for role, file in dinogrl.released_files(config).items():
        state = {k: torch.tensor(np.array(v)) for k, v in states[file.name][0].items()}
        torch.save(state, folder / file.name)
        paths[role] = str(folder / file.name)
    return paths


def options(paths):
    return [word for role, path in paths.items() for word in (f"--{role}", path)]


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_all_entries_of_the_manifest():
    """Each has exactly one rule, each variable is filled, and the way back gives the manifest."""
    config = default("dinogrl")
    shapes = variable_shapes(dinogrl.Model(config, Facts(500)), config)
    modules = [m for f in dinogrl.released_files(config).values() for m in f.modules]
    assert sorted(modules) == sorted(shapes["params"])
    entries = 0
    for file in dinogrl.released_files(config).values():
        state = {
            key: np.broadcast_to(np.int64(0) if key.endswith("tracked") else np.float32(0), shape)
            for key, shape in MANIFEST[file.name]
        }
        targets = {c: {m: t[m] for m in file.modules if m in t} for c, t in shapes.items()}
        made, report = to_variables(state, file.rules, targets, source_name=file.name)
        back, _ = to_state(made, file.rules)
        entries_back = {key: (array.shape, array.dtype) for key, array in back.items()}
        assert entries_back == {key: (array.shape, array.dtype) for key, array in state.items()}
        entries += len(report.moves)
    assert entries == 963


def test_small_model_there_and_back(config, variables, files):
    made, facts, reports = released_model(dinogrl, files, config)
    assert facts == Facts(IDENTITIES)
    assert_same(made, variables)
    assert [report.name for report in reports] == list(files.values())
    back = released_states(dinogrl, made, config)
    for name, (state, _) in back.items():
        saved = torch.load(Path(files["model"]).parent / name, weights_only=True)
        assert saved.keys() == state.keys()
        for key, tensor in saved.items():
            np.testing.assert_array_equal(tensor.numpy(), state[key])


def test_scripts_there_and_back(variables, files, tmp_path):
    made, back = tmp_path / "made", tmp_path / "back"
    done = script(
        "convert.py", "--from", "dinogrl", *options(files), "--config", small.PATH, "--out", made
    )
    assert done.status == 0, done.errors
    assert re.search(r"blocks\S+attn\S+weight +linear +params/dinov2/block\{i\}/attn", done.output)
    manager = checkpoints_of(str(made))
    metadata = checkpoint.saved_metadata(manager, 0)
    assert metadata.identities == list(range(IDENTITIES)) and metadata.cameras == []
    assert metadata.step == 0
    assert metadata.config.model == small.get_config().model
    done = script("convert.py", "--to", "torch", "--checkpoint", made, "--out", back)
    assert done.status == 0, done.errors
    for path in map(Path, files.values()):
        saved, again = (torch.load(p, weights_only=True) for p in (path, back / path.name))
        assert saved.keys() == again.keys()
        assert all(torch.equal(saved[key], again[key]) for key in saved)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "made"]  # no drafts


def test_ablations_have_the_files_they_need(config, files, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.update({"streams": ("appearance",), "pbmge": False})
    variables = small.random_variables(config)
    states = released_states(dinogrl, variables, config)
    assert list(states) == ["best_model.pth"]
    path = str(tmp_path / "model.pth")
    torch_files.write(path, states["best_model.pth"][0])
    assert_same(released_model(dinogrl, {"model": path}, config)[0], variables)
    with pytest.raises(InputError, match="best_shape.pth .--gait. is not needed"):
        released_model(dinogrl, {"model": path, "gait": files["gait"]}, config)


def changed(path, target, **changes):
    """A copy of a file with other arrays; None leaves a key out."""
    state = {**torch_files.read(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    torch_files.write(target, {key: value for key, value in state.items() if value is not None})
    return str(target)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


def bad_inputs(files, folder):
    """Paths of the three files, and what the refusal has to name."""
    torch.save({"a": Payload(folder / "ran")}, folder / "evil.pth")
    (folder / "short.pth").write_bytes(Path(files["gait"]).read_bytes()[:5000])
    classes = np.zeros((10, 16, IDENTITIES + 1), np.float32)
    gait = {"dinov2__gait_net__BNNecks__fc_bin": classes}
    yield {"gait": str(folder / "evil.pth")}, ("evil.pth", "system")
    yield {"gait": str(folder / "short.pth")}, ("short.pth", "truncated")
    yield {"gait": str(folder / "none.pth")}, ("none.pth", "no such file")
    yield {"gait": ""}, ("best_shape.pth (--gait) is missing",)
    yield {"model": files["gait"]}, (files["gait"], "BNNecks.fc_bin")
    yield {"pbmge": files["model"]}, (files["model"], "no rule takes it")
    yield (
        {"gait": changed(files["gait"], folder / "classes.pth", **gait)},
        ("classes.pth", "gait_net.BNNecks.fc_bin", f"(10, 16, {IDENTITIES + 1})"),
    )
    lacking = changed(files["gait"], folder / "lacking.pth", dinov2__dinov2__pos_embed=None)
    yield {"gait": lacking}, ("lacking.pth", "dinov2.dinov2.pos_embed", "is missing")
    more = changed(files["pbmge"], folder / "more.pth", extra=np.zeros(1, np.float32))
    yield {"pbmge": more}, ("more.pth", "extra", "no rule takes it")
    whole = np.zeros((1, 1, 32), np.int64)
    ints = changed(files["gait"], folder / "ints.pth", dinov2__dinov2__cls_token=whole)
    yield {"gait": ints}, ("ints.pth", "cls_token", "int64")


def test_bad_files_are_refused(config, files, tmp_path):
    for paths, named in bad_inputs(files, tmp_path):
        given = {role: path for role, path in {**files, **paths}.items() if path}
        with pytest.raises(InputError) as caught:
            released_model(dinogrl, given, config)
        first = str(caught.value).splitlines()[0]
        assert all(name in first for name in named), first
    assert not (tmp_path / "ran").exists()


def test_nothing_is_written_or_overwritten(files, tmp_path):
    out = tmp_path / "out"
    there = ("--config", small.PATH, "--out", out)
    bad = {**files, "pbmge": files["model"]}
    assert "no rule takes it" in refusal("convert.py", "--from", "dinogrl", *options(bad), *there)
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / "mine").touch()
    assert "choose another --out" in refusal(
        "convert.py", "--from", "dinogrl", *options(files), *there
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]
    assert "needs a FILE" in refusal("convert.py", "--from", "dinov2", "--out", tmp_path / "new")
    assert "no such folder" in refusal(
        "convert.py", "--to", "torch", "--checkpoint", tmp_path / "none", "--out", tmp_path / "new"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "dinogrl"), "--from dinogrl needs --model best_model.pth --"),
        (("--from", "dinogrl", "best_model.pth"), "--from dinogrl needs --model best_model.pth --"),
        (("--from", "dinogrl", "x", "--model", "y"), "--from dinogrl takes no FILE (x)"),
        (("--from", "dinov2", "x", "--model", "y"), "--from dinov2 takes no --model"),
        (("--from", "dinov2", "x", "--checkpoint", "y"), "--from dinov2 takes no --checkpoint"),
        (("--to", "torch", "--model", "y"), "--to torch needs --checkpoint DIR"),
        (("--to", "torch", "--checkpoint", "x", "--config", "y"), "--to torch takes no --config"),
    ],
)
def test_options_that_are_missing_or_of_another_way(words, said, tmp_path):
    assert said in refusal("convert.py", *words, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_table_lists_every_rule_that_was_used(config, files):
    _, _, reports = released_model(dinogrl, files, config)
    for report in reports:
        head, *lines = report_lines(report)
        assert report.name in head and f"{len([m for m in report.moves if m.path])} tensors" in head
        assert sum(int(line.split()[0]) for line in lines) == len(report.moves)
        assert any(line.endswith("dropped") for line in lines)

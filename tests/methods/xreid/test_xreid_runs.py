"""A small X-ReID as a user has it: trained, continued, evaluated, extracted, exported."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from commands import SMALL_DEMO, refusal, script
from kill import saved

from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.training import loop
from dinogrl_jax.training.interruption import Stopped
from dinogrl_jax.training.sweep import Sweeper

IDENTITIES = 8  # whose tracklets have every camera of the test set
DIRECTIONS = ("visible_to_infrared", "infrared_to_visible")


SETTINGS = SMALL_DEMO | {
    "train.checkpoint_every": 1,
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_epochs": 1,
    "data.synthetic.train_identities": IDENTITIES,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with a data set, and a function that trains in a folder of its own."""
    folder = tmp_path_factory.mktemp("xreid")

    def train(name):
        given = {k: str(v) for k, v in (SETTINGS | {"data.root": folder / "people"}).items()}
        return loop.train(changed_config(small.get_config("xreid"), given), folder / name)

    return folder, train


@pytest.fixture(scope="module")
def whole(demo):
    """Three epochs of two steps; two passes by statistics of the batch, one by running ones."""
    folder, train = demo
    return folder / "whole", train("whole")


class Killed(Exception):
    """What stands for SIGKILL: nobody saves anything."""


def test_a_run_that_is_killed_between_a_pass_and_a_step_continues_to_the_bit(
    demo, whole, monkeypatch
):
    folder, train = demo

    def killed(self, state, epoch, *given):
        made = Sweeper.__call__(self, state, epoch, *given)
        if epoch == 1:
            raise Killed
        return made

    with monkeypatch.context() as patched:
        patched.setattr(loop, "Sweeper", type("Sweeper", (Sweeper,), {"__call__": killed}))
        with pytest.raises(Killed):
            train("killed")
    assert_same(train("killed"), folder / "killed", whole)


@pytest.mark.parametrize("calls, step", [(19, 2), (26, 3)])
def test_a_run_that_is_stopped_in_a_pass_or_in_mid_epoch_continues_to_the_bit(
    demo, whole, monkeypatch, calls, step, capsys
):
    """It is asked whether it goes on behind each of the 12 batches of a pass, and each step."""
    folder, train = demo
    name, asked = f"stopped{step}", iter(range(calls))

    def check(self):
        if next(asked, None) is None:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "check", check)
        assert train(name) is None
    print_out = capsys.readouterr().out
    assert f"saved at step {step};" in print_out, print_out
    assert_same(train(name), folder / name, whole)


def test_a_command_that_is_killed_in_a_pass_and_in_mid_epoch_continues_to_the_bit(whole):
    """The same command again and again; it goes on where the last epoch ended."""
    folder, file = whole[0].parent, Path(__file__).with_name("killed_xreid.py")
    given = [f"--config.{k}={v}" for k, v in (SETTINGS | {"data.root": folder / "people"}).items()]
    command = ("train.py", "--config", file, "--workdir", folder / "command", *given)
    for place, begins in (("pass 1 5", 0), ("step 5", 2), ("", 4)):
        done = script(*command, KILLED=place)
        assert done.status == (-signal.SIGKILL if place else 0), done.errors
        assert f"steps {begins} to 6" in done.output, done.output
    results = json.loads((folder / "command/results.json").read_text())
    assert_same(results, folder / "command", whole)


def assert_same(results, folder, whole) -> None:
    one, other = saved(folder), saved(whole[0])
    assert len(one) == len(other) and all(map(np.array_equal, one, other))
    for direction in DIRECTIONS:
        assert results[direction] == whole[1][direction]


def test_prototypes_are_of_length_1(whole):
    memories = [x for x in saved(whole[0]) if x.shape == (IDENTITIES, 14)]  # 8 + 6 channels
    assert len(memories) == 2
    for memory in memories:
        np.testing.assert_allclose(np.linalg.norm(memory, axis=1), 1, rtol=1e-5)  # float32


def test_the_scripts_read_it(whole, tmp_path):
    """The figures again, and by all variants; a manifest's descriptors; the published file."""
    folder, found = whole
    done = script("evaluate.py", "--workdir", folder, "--variants", "--out", tmp_path / "scored")
    assert done.status == 0, done.errors
    again = json.loads((tmp_path / "scored/results.json").read_text())
    assert again["distance"] == "cosine" and again["protocol"] == "vcm"
    given = ("--config.evaluation.descriptor=V1", "--noreport", "--out", tmp_path / "alone")
    alone = script("evaluate.py", "--workdir", folder, *given)
    assert alone.status == 0, alone.errors
    alone = json.loads((tmp_path / "alone/results.json").read_text())
    assert list(again["variants"]) == ["V0", "V1", "V2", "V3"] and "variants" not in alone
    assert "descriptor V3" in done.output
    for direction in DIRECTIONS:
        assert again[direction]["mAP"] == pytest.approx(found[direction]["mAP"], rel=1e-6)
        assert again["variants"]["V0"][direction] == again[direction]
        assert again["variants"]["V1"][direction] == pytest.approx(alone[direction], rel=1e-6)
    listed = manifest(folder, tmp_path, 1)
    for variant, channels in (("V0", 22), ("V2", 16)):
        given = (
            "--checkpoint",
            folder,
            "--tracklets",
            listed,
            "--out",
            tmp_path / f"{variant}.npz",
        )
        done = script("extract.py", *given, "--set", f"evaluation.descriptor={variant}")
        assert done.status == 0, done.errors
        made = np.load(tmp_path / f"{variant}.npz")["embedding"]
        assert made.shape == (1, 1, channels)
    given = ("--to", "torch", "--checkpoint", folder, "--out", tmp_path / "file")
    done = script("convert.py", *given)
    assert done.status == 0, done.errors
    state = torch.load(tmp_path / "file/best_model.pth.tar", weights_only=True)
    assert state["cv_embed"].shape[1] == 8


def manifest(folder, place, camera) -> str:
    """One tracklet of a camera; None: unknown."""
    frame = next((folder.parent / "people").rglob("*.[jp][pn]g"))
    line = {"frames": [str(frame)] * 3, "modality": "visible", "identity": 7}
    path = place / f"{camera}.jsonl"
    path.write_text(json.dumps(line if camera is None else {**line, "camera": camera}))
    return str(path)


@pytest.mark.parametrize("camera", [None, 77])
def test_a_camera_that_was_not_trained_with(whole, tmp_path, camera):
    """It is refused in one line; or the mean of all stands for it, or none, which differ."""
    folder, _ = whole
    given = ["--checkpoint", folder, "--tracklets", manifest(folder, tmp_path, camera)]
    error = refusal("extract.py", *given, "--out", tmp_path / "none.npz")
    assert "evaluation.unknown_camera" in error and f"is {camera or -1}" in error, error
    made = []
    for stands in ("mean", "none"):
        out = tmp_path / f"{stands}.npz"
        setting = f"evaluation.unknown_camera={stands}"
        done = script("extract.py", *given, "--out", out, "--set", setting)
        assert done.status == 0, done.errors
        made.append(np.load(out)["embedding"])
    assert np.abs(made[0] - made[1]).max() > 1e-6


@pytest.mark.parametrize(
    "setting, named",
    [("model.sii.depth=1", "model.sii.depth"), ("evaluation.descriptor=V4", "V0, V1, V2 or V3")],
)
def test_other_models_are_refused_in_one_line(whole, tmp_path, setting, named):
    folder, _ = whole
    given = ("--checkpoint", folder, "--tracklets", manifest(folder, tmp_path, 1))
    error = refusal("extract.py", *given, "--out", tmp_path / "x.npz", "--set", setting)
    assert named in error, error

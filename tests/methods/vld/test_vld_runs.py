"""A small VLD as a user has it: trained, continued to the bit, evaluated, extracted, exported."""

import json

import numpy as np
import pytest
import small
import torch
from commands import SMALL_DEMO, refusal, script
from kill import saved

from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.training import loop

DIRECTIONS = ("visible_to_infrared", "infrared_to_visible")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two epochs at once, and one with another that continues it."""
    folder = tmp_path_factory.mktemp("vld")
    (folder / "small_vld.py").write_text(
        f"import sys\n\nsys.path.insert(0, {small.PATH.rpartition('/')[0]!r})\n"
        'import small\n\n\ndef get_config():\n    return small.get_config("vld")\n'
    )
    demo = SMALL_DEMO | {"data.root": folder / "people", "optimizer.warmup_epochs": 1}
    found = {}
    for run, epochs in (("whole", 2), ("resumed", 1), ("resumed", 2)):
        settings = {k: str(v) for k, v in (demo | {"train.epochs": epochs}).items()}
        config = changed_config(small.get_config("vld"), settings)
        found[run] = loop.train(config, folder / run)
    return folder, found


def test_a_run_continues_to_the_bit(runs):
    folder, found = runs
    whole, resumed = saved(folder / "whole"), saved(folder / "resumed")
    assert all(map(np.array_equal, whole, resumed))
    for direction in DIRECTIONS:
        assert found["whole"][direction] == found["resumed"][direction]


def test_the_scripts_read_it(runs, tmp_path):
    """A manifest's frames → two rows of a descriptor; the figures again; the published file."""
    folder, found = runs
    done = script("evaluate.py", "--workdir", folder / "whole", "--out", tmp_path / "scored")
    assert done.status == 0, done.errors
    again = json.loads((tmp_path / "scored/results.json").read_text())
    assert again["distance"] == "dot" and again["protocol"] == "vcm"
    for direction in DIRECTIONS:
        assert again[direction]["mAP"] == pytest.approx(found["whole"][direction]["mAP"], rel=1e-6)
    frame = next((folder / "people").rglob("*.[jp][pn]g"))
    line = {"frames": [str(frame)] * 3, "modality": "visible", "identity": 7}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    given = ("--checkpoint", folder / "whole", "--tracklets", tmp_path / "list.jsonl")
    done = script("extract.py", *given, "--out", tmp_path / "features.npz")
    assert done.status == 0, done.errors
    assert np.load(tmp_path / "features.npz")["embedding"].shape == (1, 2, 8)
    given = ("--to", "torch", "--checkpoint", folder / "whole", "--out", tmp_path / "file")
    done = script("convert.py", *given)
    assert done.status == 0, done.errors
    state = torch.load(tmp_path / "file/best_model.pth", weights_only=True)
    assert state["prompt_embedding"].shape == (2, 2, 8)


@pytest.mark.parametrize(
    "setting, named",
    [("data.frames=3", "data.frames, 3"), ("data.height=96", "data.height")],
)
def test_other_frames_than_the_models_are_refused_in_one_line(runs, setting, named):
    """The hub has so many frames, and positions are those of so many patches."""
    error = refusal("evaluate.py", "--workdir", runs[0] / "whole", f"--config.{setting}")
    assert named in error, error

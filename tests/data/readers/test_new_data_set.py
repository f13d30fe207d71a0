"""docs/new_data_set.md: its code, run on a small data set of the layout that it describes."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.config import shared
from dinogrl_jax.data import datasets
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.problems import Problem
from dinogrl_jax.interface.errors import InputError

DOCUMENT = Path(__file__).parents[3] / "docs" / "new_data_set.md"
FOLDERS = (
    "train/7/1-visible-1",
    "train/7/2-infrared-1",
    "train/11/1-visible-1",
    "train/11/2-infrared-1",
    "query/20/2-infrared-1",
    "gallery/20/1-visible-1",
)


@pytest.fixture
def gates(monkeypatch) -> ModuleType:
    """The reader of the document, registered by the line of the document."""
    reader, line = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    module = ModuleType("gates")
    exec(compile(reader, "gates.py", "exec"), module.__dict__)
    for name, function in eval(f"{{{line}}}", {"gates": module}).items():
        monkeypatch.setitem(datasets.DATASETS, name, function)
    return module


@pytest.fixture
def config(tmp_path) -> ConfigDict:
    """Three frames in each folder, the last of which is named so that text would sort it first."""
    rng = np.random.default_rng(0)
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
        for number in (8, 9, 10):
            picture = Image.fromarray(rng.integers(0, 256, (12, 8, 3), np.uint8))
            picture.save(tmp_path / folder / f"{number}.png")
    data = ConfigDict(shared()["data"])
    data.update(dataset="gates", root=str(tmp_path), minimum_frames=3, identities_per_batch=2)
    return data


def test_the_tracklets_of_the_example(gates, config):
    train, test = datasets.read(config)
    assert [tracklet[1:-1] for tracklet in train] == [
        ("11", 1, "visible", "train", -1),
        ("11", 2, "infrared", "train", -1),
        ("7", 1, "visible", "train", -1),
        ("7", 2, "infrared", "train", -1),
    ]
    assert [tracklet[1:-1] for tracklet in test] == [
        ("20", 2, "infrared", "query", -1),
        ("20", 1, "visible", "gallery", -1),
    ]
    names = [Path(frame).relative_to(config.root).as_posix() for frame in test[0].frames]
    assert names == [f"query/20/2-infrared-1/{number}.png" for number in (8, 9, 10)]


def test_validation_accepts_the_example(gates, config):
    report = validate(config, workers=0)
    assert report.problems == [] and report.totals["infrared queries"] == 1


def test_what_is_wrong_is_named_or_collected(gates, config):
    root = Path(config.root)
    (root / "train/7/2-thermal-1").mkdir()
    (root / "query/20/2-infrared-1/9.png").unlink()
    with pytest.raises(InputError, match="2-thermal-1 has no name like 2-infrared-1"):
        datasets.read(config)
    problems: list[Problem] = []
    train, test = datasets.read(config, problems)
    assert (len(train), len(test)) == (4, 1)
    assert [problem.kind for problem in problems] == ["folder", "short tracklet"]
    assert validate(config, workers=0).fatal[0].file.endswith("2-thermal-1")
    config.root = str(root / "train")
    with pytest.raises(InputError, match="set data.root"):
        datasets.read(config)

"""BUPTCampus's files, built by hand: pairs, an auxiliary set, pictures made from others."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dinogrl_jax.config import shared
from dinogrl_jax.data import datasets
from dinogrl_jax.data.problems import Problem
from dinogrl_jax.data.readers import bupt
from dinogrl_jax.data.tracklets import labels, queries_and_gallery
from dinogrl_jax.interface.errors import InputError

LINES = {
    "train.txt": ["9 RGB/IR CQ1 1", "10 RGB/IR TSG2 1", "10 RGB/IR LS3 2"],
    "query.txt": ["11 RGB G25 1", "12 IR CQ1 1"],
    "gallery.txt": ["11 IR LS3 1", "12 RGB W4 1", "12 RGB G25 3"],
    "train_auxiliary.txt": ["20 RGB/IR TSG1 1"],
}


class Campus:
    """The lists and data_paths.json, with three frames a tracklet."""

    def __init__(self, root: Path):
        self.root = root
        self.lines = {name: list(lines) for name, lines in LINES.items()}
        self.paths: dict = {}
        for line in sum(LINES.values(), []):
            identity, modalities, camera, track = line.split()
            for m in modalities.split("/"):
                place = self.paths.setdefault(identity, {}).setdefault(m, {}).setdefault(camera, {})
                name = f"{identity}/{m}/{camera}/{identity}_{m}_{camera}_{track}_"
                place[track] = [f"{name}{number}.jpg" for number in (8535, 8540, 8545)]

    def write(self, lists: str = "", json_in: str = "") -> str:
        for identity in self.paths:
            (self.root / "DATA" / identity).mkdir(parents=True, exist_ok=True)
        for folder in (lists, json_in):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, lines in self.lines.items():
            (self.root / lists / name).write_text("\n".join(lines) + "\n")
        (self.root / json_in / "data_paths.json").write_text(json.dumps(self.paths))
        return str(self.root)


@pytest.fixture
def campus(tmp_path) -> Campus:
    return Campus(tmp_path / "campus")


def problem(root: str, **settings) -> str:
    with pytest.raises(InputError) as caught:
        bupt.read_splits(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pairs_queries_and_gallery(campus):
    train, test = bupt.read_splits(campus.write())
    assert [tracklet[1:-1] for tracklet in train] == [
        ("9", 2, "visible", "train", 0),
        ("9", 2, "infrared", "train", 0),
        ("10", 5, "visible", "train", 1),
        ("10", 5, "infrared", "train", 1),
        ("10", 0, "visible", "train", 2),
        ("10", 0, "infrared", "train", 2),
    ]
    assert train[1].frames[0] == str(campus.root / "DATA/9/IR/CQ1/9_IR_CQ1_1_8535.jpg")
    assert labels(train) == {"10": 0, "9": 1}  # as text, like the published classifiers' rows
    assert queries_and_gallery(test, "visible") == ([0], [2])
    assert queries_and_gallery(test, "infrared") == ([1], [3, 4])


@pytest.mark.parametrize("places", [("", ""), ("inversing_bu/txt", "inversing_bu/json")])
@pytest.mark.parametrize("inner", ["", "DATA"])
def test_every_layout_gives_the_same(campus, places, inner):
    expected = bupt.read_splits(campus.write())
    for name in [*LINES, "data_paths.json"]:
        (campus.root / name).unlink()
    root = campus.write(*places)
    assert bupt.read_splits(str(Path(root) / inner)) == expected


def test_the_auxiliary_set_and_the_made_pictures(campus):
    train, _ = bupt.read_splits(campus.write(), auxiliary=True, fake_infrared=True)
    assert [tracklet.identity for tracklet in train[6:8]] == ["20", "20"] and train[6].pair > 2
    made = train[8:]
    assert [tracklet.identity for tracklet in made] == ["9", "10", "10", "20"]
    assert {(tracklet.modality, tracklet.pair) for tracklet in made} == {("infrared", -1)}
    assert made[0].frames[1] == str(campus.root / "DATA/9/FakeIR/CQ1/9_RGB_CQ1_1_8540.jpg")


@pytest.mark.parametrize(
    "line, words",
    [
        ("9 RGB/IR CQ1", "3 words, not 4"),
        ("9 rgb CQ1 1", "modality 'rgb' is none of"),
        ("9 RGB/IR D3 1", "camera 'D3' is none of"),
        ("9 RGB/IR CQ1 7", "no tracklet 9 RGB CQ1 7"),
        ("99 IR CQ1 1", "no tracklet 99 IR CQ1 1"),
    ],
)
def test_wrong_lines_are_named_and_can_be_left_out(campus, line, words):
    campus.lines["train.txt"][1:2] = ["", line]
    root = campus.write()
    assert f"train.txt:3: {words.split(' is')[0]}" in problem(root).replace(
        "data_paths.json has ", ""
    )
    found: list[Problem] = []
    train, _ = bupt.read_splits(root, problems=found)
    assert [tracklet.pair for tracklet in train] == [0, 0, 1, 1]
    assert [(p.line, p.kind) for p in found] == [(3, "row")] and words.split()[0] in found[0].text


def test_unequal_pairs_and_frames_of_others_are_kept(campus):
    campus.paths["9"]["IR"]["CQ1"]["1"].pop()
    campus.paths["10"]["RGB"]["LS3"]["2"][0] = "9/RGB/CQ1/9_RGB_CQ1_1_1.jpg"
    found: list[Problem] = []
    train, _ = bupt.read_splits(campus.write(), problems=found)
    assert len(train) == 6
    assert [(p.kind, p.line, p.fatal) for p in found] == [
        ("unequal pair", 1, False),
        ("frames of others", 3, False),
    ]


def test_roots_and_files_that_are_none(campus, tmp_path):
    assert "is not a folder" in problem(str(tmp_path / "nowhere"))
    root = campus.write()
    (campus.root / "data_paths.json").write_text("[")
    assert "cannot be read as JSON" in problem(root)
    (campus.root / "query.txt").unlink()
    (campus.root / "train_auxiliary.txt").unlink()
    assert "no query.txt in" in problem(root)
    assert "train_auxiliary.txt" in problem(root, auxiliary=True)


def test_settings_that_contradict_each_other(campus):
    config = ConfigDict(shared()["data"])
    config.update(dataset="bupt", root=campus.write(), minimum_frames=3)
    assert [len(split) for split in datasets.read(config)] == [6, 5]
    config.minimum_frames = 4
    assert datasets.read(config) == ([], [])
    config.update(batch_rule="camera-pairs", auxiliary=True)
    with pytest.raises(InputError, match="data.batch_rule"):
        datasets.read(config)
    config.update(auxiliary=False, discard_train="x")
    with pytest.raises(InputError, match="discard_train"):
        datasets.read(config)

"""A manifest as a data set: split, role and identities of its lines."""

import json

import pytest
from ml_collections import ConfigDict

from dinogrl_jax.config import shared
from dinogrl_jax.data import datasets
from dinogrl_jax.data.problems import Problem
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.interface.errors import InputError

LINES = [
    {"identity": 3, "modality": "visible", "split": "train", "camera": 1},
    {"identity": 3, "modality": "infrared", "split": "train", "role": "train"},
    {"identity": 8, "modality": "visible", "split": "test", "role": "query"},
    {"identity": 8, "modality": "infrared", "role": "gallery"},
    {"identity": 9, "modality": "infrared", "split": "test"},
]


@pytest.fixture
def written(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").touch()

    def write(lines) -> str:
        path = tmp_path / "tracklets.jsonl"
        frames = {"frames": ["0.jpg", "1.jpg", "2.jpg"]}
        path.write_text("\n".join(json.dumps({**frames, **line}) for line in lines))
        return str(path)

    return write


def config(root: str, **settings) -> ConfigDict:
    data = ConfigDict(shared()["data"])
    data.update(dataset="manifest", root=root, minimum_frames=1, **settings)
    return data


def test_splits_and_roles(written):
    train, test = datasets.read(config(written(LINES)))
    assert [tracklet[1:5] for tracklet in train] == [
        (3, 1, "visible", "train"),
        (3, -1, "infrared", "train"),
    ]
    assert [tracklet.role for tracklet in test] == ["query", "gallery", "both"]


def test_one_name_among_the_identities_makes_all_text(written):
    train, test = datasets.read(config(written([*LINES[:4], {**LINES[4], "identity": "Anna"}])))
    assert [tracklet.identity for tracklet in train + test] == ["3", "3", "8", "8", "Anna"]


@pytest.mark.parametrize(
    "line, words",
    [
        ({**LINES[0], "split": "validation"}, "split is 'validation', neither train nor test"),
        ({**LINES[0], "split": ["train"]}, "split is"),
        ({**LINES[0], "role": "query"}, "role is for test tracklets"),
        ({**LINES[2], "role": "probe"}, "role is 'probe', none of query, gallery, both"),
        ({"modality": "visible"}, "identity is missing"),
    ],
)
def test_wrong_lines_are_named_and_can_be_left_out(written, line, words):
    path = written([LINES[0], line, *LINES[1:]])
    with pytest.raises(InputError, match=f"tracklets.jsonl:2: {words}"):
        manifest.read_splits(path)
    found: list[Problem] = []
    train, test = manifest.read_splits(path, problems=found)
    assert len(train) + len(test) == 5 and [problem.line for problem in found] == [2]


def test_short_tracklets_and_wrong_roots(written, tmp_path):
    data = config(written(LINES))
    data.minimum_frames = 4
    assert datasets.read(data) == ([], [])
    data.root = str(tmp_path)
    with pytest.raises(InputError, match="is a folder: give the manifest"):
        datasets.read(data)

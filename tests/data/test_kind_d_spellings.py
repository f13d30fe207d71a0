"""One person under two spellings is refused, by one rule in manifests and files of features."""

import pickle

import numpy as np
import pytest
from manifests import lines, section, written

from dinogrl_jax.data import datasets
from dinogrl_jax.data.checks.usable import Demands, usable_problems
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.readers.spelling import NamedCamera, Spellings
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file

ALIKE = [
    ("7", "0007"),
    ("7", " 7"),
    ("7", "7.0"),
    ("7", "+7"),
    ("7", "７"),
    ("Anna", "anna"),
    ("Anna", "Anna "),
    ("Anna B", "Anna  B"),
    ("Zo\u00eb", "Zoe\u0308"),
    ("a01", "a1"),
    ("-2", "-02"),
]
DIFFERENT = [("7", "70"), ("7", "-7"), ("7", "7a"), ("1.5", "15"), ("a10", "a1"), ("Anna", "Anne")]


def features(folder, identity, camera=None):
    n = len(identity)
    columns = {
        "embedding": np.eye(n, 5, dtype=np.float32),
        "identity": np.array(identity),
        "modality": np.array(["visible", "infrared"] * n)[:n],
    }
    if camera is not None:
        columns["camera"] = np.array(camera)
    np.savez(folder / "f.npz", **columns)
    return feature_file.read_features(str(folder / "f.npz"))


def listed(folder, first, second, key="identity"):
    content = lines(1, 1)[:4]
    for line, value in zip(content, (first, first, second, second), strict=True):
        line[key] = value
    return written(folder, content)


@pytest.mark.parametrize("pair", [*ALIKE, (7, "7"), (7, "0007"), ("0007", 7.0)])
def test_two_spellings_in_a_manifest_are_refused_with_both_places(pair, tmp_path):
    path = listed(tmp_path, *pair)
    for read in (manifest.read_splits, manifest.read_tracklets):
        with pytest.raises(InputError) as caught:
            read(path)
        message = str(caught.value)
        assert "line 1" in message and (":3: " in message or "line 3" in message)
    kinds = [problem.kind for problem in validate(section(path), workers=0).fatal]
    assert kinds.count("spelling") == 1


@pytest.mark.parametrize("pair", ALIKE)
def test_and_in_a_file_of_features(pair, tmp_path):
    with pytest.raises(InputError) as caught:
        features(tmp_path, [pair[0], "b", "c", pair[1], pair[1]])
    assert "tracklet 0" in str(caught.value) and "tracklet 3" in str(caught.value)


@pytest.mark.parametrize("pair", DIFFERENT)
def test_different_names_stay_different(pair, tmp_path):
    train, _ = manifest.read_splits(listed(tmp_path, *pair))
    assert {tracklet.identity for tracklet in train} == set(pair)
    found = features(tmp_path, [*pair, *pair])
    assert found.names.tolist() == [*pair, *pair] and found.identity[0] != found.identity[1]


def test_whole_numbers_are_numbers_however_they_are_written(tmp_path):
    train, _ = manifest.read_splits(listed(tmp_path, 7, 7.0))
    assert [tracklet.identity for tracklet in train] == [7] * 4
    train, _ = manifest.read_splits(listed(tmp_path, 3, 3.0, "camera"))
    assert {tracklet.camera for tracklet in train} == {3}
    assert features(tmp_path, [7.0, 8.0, -0.0, 0.0]).names.tolist() == ["7", "8", "0", "0"]


@pytest.mark.parametrize("unknown", [None, -1, -1.0, "", "-1", " ", "nan", "NaN"])
def test_what_is_unknown(unknown, tmp_path):
    path = listed(tmp_path, unknown, 8)
    assert [t.identity for t, _ in manifest.read_tracklets(path)] == [-1, -1, 8, 8]
    with pytest.raises(InputError, match="m.jsonl:1: identity is missing"):
        manifest.read_splits(path)
    if isinstance(unknown, str):
        assert features(tmp_path, [unknown, "8"]).names.tolist() == ["", "8"]


@pytest.mark.parametrize(
    "value", [1.5, True, [7], {"a": 7}, 10**30, float("inf"), "x" * 201, "a\n"]
)
def test_identities_that_are_none(value, tmp_path):
    with pytest.raises(InputError, match="m.jsonl:1: identity"):
        manifest.read_splits(listed(tmp_path, value, 8))


def test_cameras_have_numbers_or_names(tmp_path):
    train, _ = manifest.read_splits(listed(tmp_path, "hall", "door 2", "camera"))
    numbers = [tracklet.camera for tracklet in train]
    assert numbers[0] == numbers[1] != numbers[2] and list(map(str, numbers))[::2] == [
        "hall",
        "door 2",
    ]
    (other, *_), _ = manifest.read_splits(listed(tmp_path, "door 2", "x", "camera"))
    assert other.camera == numbers[2]  # a name has its number in every file
    assert np.array(numbers, np.int32).tolist() == numbers  # as in a batch
    assert pickle.loads(pickle.dumps(numbers[0])) == numbers[0]
    columns = feature_file.tracklet_columns(
        manifest.read_tracklets(listed(tmp_path, "a", "b", "camera"))
    )
    assert columns["camera"].tolist() == ["a", "a", "b", "b"]


@pytest.mark.parametrize("pair", [("cam1", "Cam1"), ("cam1", "cam01"), (3, "hall"), ("a", "a ")])
def test_cameras_in_two_spellings(pair, tmp_path):
    with pytest.raises(InputError, match="m.jsonl:3: camera is .* here and .* in line 1"):
        manifest.read_splits(listed(tmp_path, *pair, "camera"))
    if not isinstance(pair[0], int):
        with pytest.raises(InputError, match="camera is"):
            features(tmp_path, ["a", "b"], pair)


@pytest.mark.parametrize("value", [1 << 31, -2, 1.5, True, "x" * 201, [1]])
def test_cameras_that_are_none(value, tmp_path):
    with pytest.raises(InputError, match="m.jsonl:1: camera"):
        manifest.read_splits(listed(tmp_path, value, 8, "camera"))


def test_digits_are_a_cameras_number(tmp_path):
    train, _ = manifest.read_splits(listed(tmp_path, 3, "03", "camera"))
    assert {tracklet.camera for tracklet in train} == {3}
    assert not any(isinstance(tracklet.camera, NamedCamera) for tracklet in train)


def test_any_reader_s_identities_are_compared():
    names = ("0007", "7", "7")
    train = [Tracklet((f"{i}.png",), name, 1, "visible", "train") for i, name in enumerate(names)]
    found = [p.text for p in usable_problems(train, [], Demands()) if p.kind == "spelling"]
    assert len(found) == 1 and "1.png" in found[0] and "0.png" in found[0]


def test_a_spelling_is_reported_once():
    seen = Spellings("identity")
    values = (7, 7, "7", "7", "07", 7, 8)
    assert [bool(seen.problem(x, f"line {i}")) for i, x in enumerate(values)] == [
        *(False, False, True, False, True, False, False)
    ]


def test_vcm_s_numbers_are_numbers(tree):
    tree.lines["track_train_info.txt"] = [
        row.replace(" 0001 ", " 1.000000000000000000e+00 ")
        for row in tree.lines["track_train_info.txt"]
    ]
    data = section(tree.write(), minimum_frames=12)
    data.dataset = "vcm"
    train, _ = datasets.read(data)
    assert {tracklet.identity for tracklet in train} == {1, 2}

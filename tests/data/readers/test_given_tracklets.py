"""Tracklets that an extraction is given: folders of frames, and manifests in all their forms."""

import json

import pytest

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file

VISIBLE, INFRARED = "visible", "infrared"


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """f0.png … f8.png, which nothing here opens."""
    folder = tmp_path_factory.mktemp("frames")
    for i in range(9):
        (folder / f"f{i}.png").touch()
    return folder


def line(*frames, **fields):
    return json.dumps({"frames": [f"f{i}.png" for i in frames], "modality": VISIBLE, **fields})


LINES = [line(0, 1, identity=4, camera=2), line(2, 3, 4, 5, modality=INFRARED, identity=4)]


def written(frames, lines, name="tracklets.jsonl"):
    path = frames / name
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return path


def test_a_folder_of_folders(tmp_path):
    for folder, names in {"t10": (1, 0), "t9": (3, 12, 2)}.items():
        (tmp_path / folder).mkdir()
        for i in names:
            (tmp_path / folder / f"F{i}.PNG").touch()
        (tmp_path / folder / "notes.txt").touch()
    listed = manifest.read_tracklets(str(tmp_path), INFRARED)
    assert [path for _, path in listed] == ["t9", "t10"]
    names = [[frame.rsplit("/", 1)[1] for frame in tracklet.frames] for tracklet, _ in listed]
    assert names == [["F2.PNG", "F3.PNG", "F12.PNG"], ["F0.PNG", "F1.PNG"]]
    assert {tracklet[1:-1] for tracklet, _ in listed} == {(-1, -1, INFRARED, "both", -1)}
    with pytest.raises(InputError, match="say its modality"):
        manifest.read_tracklets(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        manifest.read_tracklets(str(tmp_path), INFRARED)
    with pytest.raises(InputError, match="holds no folder"):
        manifest.read_tracklets(str(tmp_path / "empty"), INFRARED)


def test_a_manifest_in_all_its_forms(frames):
    lines = [
        b"\xef\xbb\xbf" + line(0, identity="Anna").encode(),
        "",
        line(1, identity=3) + "\r",
        json.dumps({"frames": ["f2.png"]}),
        line(3, identity=None, camera=None, modality=INFRARED),
    ]
    listed = manifest.read_tracklets(str(written(frames, lines)), VISIBLE)
    assert [t.modality for t, _ in listed] == [VISIBLE] * 3 + [INFRARED]
    assert [t.identity for t, _ in listed] == ["Anna", 3, -1, -1]
    columns = feature_file.tracklet_columns(listed)
    assert columns["identity"].tolist() == ["Anna", "3", "", ""]
    assert columns["camera"].tolist() == [-1] * 4


BAD = [
    ("nonsense", "is not JSON"),
    (b"\xff\xfe{}", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ('{"frames": ["f0.png"', "is not JSON"),
    ("[1, 2]", "is not an object"),
    ("{}", "frames is not a list of paths"),
    (json.dumps({"frames": [], "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": "f0.png", "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": ["f0.png", 3], "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": ["gone.png"], "modality": VISIBLE}), "'gone.png' does not exist"),
    (json.dumps({"frames": ["a\0b"], "modality": VISIBLE}), "does not exist"),
    (json.dumps({"frames": ["\ud800"], "modality": VISIBLE}), "does not exist"),
    (json.dumps({"frames": ["."], "modality": VISIBLE}), "'.' does not exist"),
    (json.dumps({"frames": ["f0.png"]}), "modality is 'None'"),
    (line(0, modality="thermal"), "modality is 'thermal'"),
    (line(0, modality=["visible"]), "modality is"),
    (line(0, identity=1.5), "identity is neither"),
    (line(0, identity=True), "identity is neither"),
    (line(0, identity=[1]), "identity is neither"),
    (line(0, identity=10**30), "identity is neither"),
    (line(0, camera="D3"), "give all cameras numbers, or all of them names"),
    (line(0, camera=1.5), "camera is"),
    (line(0, idenity=3), "unknown key 'idenity'"),
    (line(0, time="2026-11-28T14:00:00"), "has no offset from UTC"),
    (line(0, time="noon"), "time 'noon': is no time like"),
    (line(0, time=True), "is no time like"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_bad_lines_are_named(bad, reason, frames):
    path = written(frames, [LINES[0], "", bad, LINES[1]], "bad.jsonl")
    with pytest.raises(InputError) as caught:
        manifest.read_tracklets(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: line 3: ") and reason in message
    assert "\n" not in message and len(message) < 1000


def test_many_bad_lines_are_summarised(frames):
    path = written(frames, ["nonsense"] * 1000, "bad.jsonl")
    with pytest.raises(InputError, match="line 1: .*; line 2: .*; and 990 more problems"):
        manifest.read_tracklets(str(path))

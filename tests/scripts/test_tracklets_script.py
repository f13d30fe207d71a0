"""scripts/tracklets.py on short videos, and what other scripts make of its tracklets."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import videos
from in_process import main_of
from PIL import Image

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.video.sources import filming_times
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training import checkpoint

SMALL = ("--minimum-width", 1, "--minimum-height", 1)


@pytest.fixture
def camera(tmp_path):
    """A video and its tracks, as words of the command line."""
    video = videos.written(tmp_path / "cam1.mp4")
    tracks = videos.tracks(tmp_path / "cam1.txt")
    return "--video", video, "--tracks", tracks, "--modality", "visible", "--camera", 1


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_tracklets_of_a_video(camera, done, tmp_path):
    out = tmp_path / "out"
    status, output, errors = done("tracklets", *camera, *SMALL, "--out", out, "--encode", "png")
    assert status == 0, errors
    assert output == f"{out}/manifest.jsonl: 2 tracklets of 40 frames, 1 video\n"
    listed = manifest.read_tracklets(str(out / "manifest.jsonl"))
    assert [path for _, path in listed] == [f"01-cam1/{n}-1/000001.png" for n in (1, 2)]
    sources = lines(out, "sources.jsonl")
    for person, ((tracklet, path), source) in enumerate(zip(listed, sources, strict=True)):
        assert tracklet[1:5] == (-1, 1, "visible", "both") and len(tracklet.frames) == 20
        for frame in tracklet.frames:
            pixels = np.asarray(Image.open(frame), int)
            assert pixels.shape == (24, 12, 3)
            assert np.abs(pixels.mean((0, 1)) - videos.COLOURS[person]).max() < 30
        assert (source["path"], source["track"], source["piece"]) == (path, person + 1, 1)
        assert source["frames"] == list(range(1, 21)) and source["clock"] == "video"
        assert source["times"] == pytest.approx(np.arange(20) / 10)
        assert source["boxes"] == [list(videos.box(person, n)) for n in range(20)]
    assert sorted(p.name for p in out.iterdir()) == ["01-cam1", "manifest.jsonl", "sources.jsonl"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_how_tracklets_are_cut(camera, done, tmp_path):
    """Stride, padding, gaps, sizes, lengths, times: each where it is said."""
    video = dict(zip(camera[::2], camera[1::2], strict=True))["--tracks"]
    videos.tracks(video, [*range(6), *range(12, 20)])
    with open(video, "a") as file:
        file.write("20,7,80,50,30,40,-1,-1,-1,-1\n20,8,80,50,1,1,-1,-1,-1,-1\n")
    out = tmp_path / "out"
    words = ("--stride", 2, "--padding", 0.25, "--longest-gap", 0.5, "--minimum-frames", 4)
    words += ("--minimum-width", 2, "--minimum-height", 1, "--start", "1970-01-01T01:00:10+01:00")
    status, output, errors = done("tracklets", *camera, *words, "--out", out)
    assert status == 0, errors
    assert "left out: 1 boxes smaller than asked for, 3 tracklets of fewer frames" in output
    sources = lines(out, "sources.jsonl")
    assert [(s["track"], s["piece"], s["frames"]) for s in sources] == [
        (1, 2, [13, 15, 17, 19]),
        (2, 2, [13, 15, 17, 19]),
    ]
    assert sources[0]["times"] == pytest.approx([11.2, 11.4, 11.6, 11.8])
    assert sources[0]["clock"] == "utc"
    left, top, width, height = videos.box(0, 12)  # a quarter more on each side, within the picture
    assert sources[0]["boxes"][0] == [left - 3, 0, width + 6, top + height + 6]
    frames = lines(out, "manifest.jsonl")[0]["frames"]
    assert Image.open(out / frames[0]).size == (18, 34)
    assert {p.name for p in (out / "01-cam1").iterdir()} == {"1-2", "2-2"}


def test_boxes_are_clipped_or_refused(camera, done, refused, tmp_path):
    tracks = camera[3]
    tracks.write_text("1,1,-5,-7,20.5,30,1\n2,1,90,50,20,30,1\n3,1,96,10,5,5,1\n")
    words = ("tracklets", *camera, *SMALL, "--out", tmp_path / "out")
    message = refused(*words)
    assert f"{tracks}: line 3: the box of 5×5 at 96, 10 is outside of the picture" in message
    status, output, _ = done(*words, "--bad", "skip")
    assert status == 0 and "left out: 1 boxes outside of the picture" in output
    (source,) = lines(tmp_path / "out", "sources.jsonl")
    assert source["boxes"] == [[0, 0, 16, 23], [90, 50, 6, 14]]


def test_thermal_video_keeps_16_bits(done, tmp_path):
    video = videos.written(tmp_path / "hot.mkv", 5, videos.thermal, "ffv1")
    tracks = videos.tracks(tmp_path / "hot.txt", range(5))
    words = ("--video", video, "--tracks", tracks, "--modality", "infrared", *SMALL)
    assert done("tracklets", *words, "--out", tmp_path / "out")[0] == 0
    listed = manifest.read_tracklets(str(tmp_path / "out/manifest.jsonl"))
    for number, frame in enumerate(listed[0].tracklet.frames):
        assert frame.endswith(".png")
        assert (np.asarray(Image.open(frame)) == 31000 + number).all()


def test_a_rate_that_varies_is_said(camera, done, tmp_path):
    videos.written(camera[1], times=[*range(10), *range(20, 40, 2)])
    status, output, _ = done("tracklets", *camera, *SMALL, "--out", tmp_path / "out")
    assert status == 0 and "cam1.mp4: its rate varies, from 0.909 to 10 pictures" in output
    assert len(lines(tmp_path / "out", "sources.jsonl")) == 4  # the gap of 1.1 s cuts both
    status, output, _ = done("tracklets", *camera, *SMALL, "--out", tmp_path / "b", "--rate", 10)
    assert status == 0 and "its rate" not in output


def test_turned_video(camera, done, tmp_path):
    videos.turned(camera[1])
    camera[3].write_text("1,1,10,50,40,46\n")  # fits into the upright picture alone
    assert done("tracklets", *camera, "--out", tmp_path / "out")[0] == 0
    (frame,) = lines(tmp_path / "out", "manifest.jsonl")[0]["frames"]
    assert Image.open(tmp_path / "out" / frame).size == (40, 46)


def test_refusals(camera, refused, tmp_path):
    video, tracks = camera[1], camera[3]
    out = ("--out", tmp_path / "out")

    def line(*words):
        return refused("tracklets", *words, *SMALL, *out)

    videos.tracks(tracks, range(24))
    message = line(*camera)
    assert f"cam1.mp4: has 20 pictures, and line 41 of {tracks} is of frame 21" in message
    videos.tracks(tracks)
    assert "1 --tracks for 2 --video" in line("--video", video, *camera)
    assert "2 --tracks for 1 --video" in line("--tracks", tracks, *camera)
    assert "is there twice" in line(*camera, *camera)
    assert "0 --modality for 1 --video" in line("--video", video, "--tracks", tracks)
    assert "say its --tracks" in line("--video", video, "--modality", "visible")
    assert "say --tracks or --detect, not both" in line(*camera, "--detect")
    assert "say --video and its options, or --list" in line()
    assert "has no offset from UTC" in line(*camera, "--start", "2026-11-28T14:00:00")
    assert "'-1' is no number from 0 to 10" in line(*camera, "--padding", "-1")
    assert "--test-identities needs --identities" in line(*camera, "--test-identities", "1")
    assert "no tracklet is left: 2 tracklets" in line(*camera, "--minimum-frames", 21)
    video.write_bytes(b"text")
    assert "cam1.mp4: is no video" in line(*camera)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()
    assert "exists: choose another --out" in line(*camera)


def test_a_gallery_gets_the_times(camera, done, tmp_path):
    out = tmp_path / "out"
    words = ("tracklets", *camera, *SMALL, "--longest-gap", 0.5, "--out", out)
    videos.tracks(camera[3], [*range(3), *range(12, 20)])
    assert done(*words, "--start", "1970-01-01T00:01:00Z")[0] == 0
    listed = manifest.read_tracklets(str(out / "manifest.jsonl"))
    times = filming_times(str(out / "manifest.jsonl"))
    main_of("search")
    columns = sys.modules["script_search"].columns_of(listed, times)
    assert columns["time"] == pytest.approx([60, 61.2, 60, 61.2])
    (tmp_path / "out").rename(tmp_path / "before")
    assert done(*words)[0] == 0
    assert filming_times(str(out / "manifest.jsonl")) == filming_times(str(tmp_path)) == {}
    (out / "sources.jsonl").write_text('{"path": 3}')
    with pytest.raises(InputError, match="sources.jsonl: line 1: 'path' is 3, not text"):
        filming_times(str(out / "manifest.jsonl"))


def listing(tmp_path, rows):
    path = tmp_path / "videos.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_many_videos_of_a_list(done, refused, tmp_path):
    rows = []
    for place, (name, modality) in enumerate((("a b", "visible"), ("é", "infrared"))):
        videos.written(tmp_path / f"{name}.mp4")
        videos.tracks(tmp_path / f"{name}.txt")
        rows.append({"video": f"{name}.mp4", "tracks": f"{name}.txt", "modality": modality})
        rows[-1] |= {"camera": place + 1}
    path, out = listing(tmp_path, rows), tmp_path / "out"
    assert done("tracklets", "--list", path, *SMALL, "--out", out)[0] == 0
    found = lines(out, "manifest.jsonl")
    assert [(x["camera"], x["modality"]) for x in found] == [
        *[(1, "visible")] * 2,
        *[(2, "infrared")] * 2,
    ]
    assert [x["frames"][0] for x in found][::2] == [
        "01-a_b/1-1/000001.jpg",
        "02-video/1-1/000001.jpg",
    ]
    bad = [{**rows[0], "modality": "thermal"}, {**rows[1], "colour": 1}, {"modality": "visible"}]
    message = refused("tracklets", "--list", listing(tmp_path, bad), "--out", tmp_path / "bad")
    for text in ("line 1: modality is 'thermal'", "line 2: has the unknown key", "no 'video'"):
        assert text in message
    mixed = [rows[0], {**rows[1], "camera": "door"}]
    message = refused("tracklets", "--list", listing(tmp_path, mixed), "--out", tmp_path / "bad")
    assert "give all cameras numbers, or all of them names" in message


def test_what_it_makes_is_extracted(camera, done, tmp_path):
    """Descriptors come of it as of any manifest, and their paths are those of sources.jsonl."""
    config = small.get_config()
    metadata = checkpoint.Metadata(config, list(range(small.IDENTITIES)), [1, 2, 3], 7)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    variables = jax.device_get(initial_variables(small.model(config), config))
    checkpoint.write_checkpoint(tmp_path / "run/checkpoints", variables, metadata)
    out, features = tmp_path / "out", tmp_path / "features.npz"
    assert done("tracklets", *camera, *SMALL, "--out", out)[0] == 0
    words = ("--checkpoint", tmp_path / "run", "--tracklets", out / "manifest.jsonl")
    status, _, errors = done("extract", *words, "--out", features)
    assert status == 0, errors
    made = np.load(features)
    assert len(made["embedding"]) == 2 and np.isfinite(made["embedding"]).all()
    assert made["path"].tolist() == [x["path"] for x in lines(out, "sources.jsonl")]


def test_what_it_makes_is_validated_as_a_training_set(done, tmp_path):
    """Where tracks are people: those of the test are in both modalities, and the others too."""
    rows = []
    for place, modality in enumerate(("visible", "infrared")):
        videos.written(tmp_path / f"{place}.mp4")
        tracks = videos.tracks(tmp_path / f"{place}.txt")
        tracks.write_text(tracks.read_text() + "1,3,50,4,12,24\n2,3,52,4,12,24\n")
        rows.append({"video": f"{place}.mp4", "tracks": f"{place}.txt", "modality": modality})
        rows[-1] |= {"camera": place + 1}
    words = ("--list", listing(tmp_path, rows), "--identities", "--test-identities", "2")
    assert done("tracklets", *words, *SMALL, "--out", tmp_path / "out")[0] == 0
    splits = {x["identity"]: x["split"] for x in lines(tmp_path / "out", "manifest.jsonl")}
    assert splits == {1: "train", 2: "test", 3: "train"}
    options = ("--minimum-frames", 1, "--identities", 2, "--workers", 0)
    root = ("--dataset", "manifest", "--root", tmp_path / "out/manifest.jsonl")
    status, output, errors = done("validate", *root, *options)
    assert status == 0, output + errors

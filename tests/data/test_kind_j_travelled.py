"""Files that travelled: ghosts of systems, turned pictures, videos, other encodings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from manifests import lines, section, written
from PIL import Image

from dinogrl_jax.data import datasets, pictures, pipeline
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.frames import FrameError
from dinogrl_jax.data.preparation import Encoding, prepare
from dinogrl_jax.data.readers import bupt, manifest
from dinogrl_jax.data.readers.listing import is_ghost
from dinogrl_jax.interface.errors import InputError

APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(400)
GHOSTS = (
    "._1.jpg",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX",
    "@eaDir",
    ".ipynb_checkpoints",
)
VIDEO = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(1000)


def saved(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    gradient = np.linspace(0, 255, 24 * 12 * 3).astype(np.uint8).reshape(24, 12, 3)
    Image.fromarray(gradient).save(path, **options)
    return path


@pytest.mark.parametrize("name", GHOSTS)
def test_ghosts_among_tracklets_and_among_frames_are_passed_over(name, tmp_path):
    for track in ("a", "b"):
        for number in (1, 2):
            saved(tmp_path / track / f"{number}.jpg")
    expected = manifest.read_tracklets(str(tmp_path), "visible")
    assert len(expected) == 2
    for folder in (tmp_path, tmp_path / "a"):
        if "." in name[1:] or name == ".DS_Store":
            (folder / name).write_bytes(APPLE)
        else:
            (folder / name).mkdir()
            (folder / name / "1.jpg").write_bytes(APPLE)
    assert manifest.read_tracklets(str(tmp_path), "visible") == expected
    assert is_ghost(name) and not is_ghost("1.jpg") and not is_ghost("track 1")


def test_ghosts_that_a_manifest_lists_are_passed_over(tmp_path):
    path = written(
        tmp_path,
        lines(),
        lambda line: {**line, "frames": ["._0.png", "__MACOSX/0.png", *line["frames"]]},
    )
    train, _ = datasets.read(section(path))
    assert {os.path.basename(frame) for frame in train[0].frames} == {"0.png", "1.png", "2.png"}
    assert not validate(section(path), workers=0).problems


def test_a_ghost_that_is_a_frame_all_the_same_is_named(tmp_path):
    (tmp_path / "1.jpg").write_bytes(APPLE)
    with pytest.raises(FrameError, match="what a Mac leaves beside a file"):
        pictures.decoded(str(tmp_path / "1.jpg"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_noted_and_turned_by_setting(orientation, tmp_path):
    path = written(tmp_path, lines())
    upright = np.arange(24 * 12, dtype=np.uint8).reshape(24, 12)
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = Image.fromarray(upright)
    if back in pictures.TURNS:
        stored = stored.transpose(pictures.TURNS[back])
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    stored.convert("RGB").save(tmp_path / "0.png", exif=exif)
    frame = str(tmp_path / "0.png")
    assert np.array_equal(np.asarray(pictures.decoded(frame, upright=True))[..., 0], upright)
    assert np.array_equal(np.asarray(pictures.decoded(frame))[..., 0], np.asarray(stored))
    kinds = [problem.kind for problem in validate(section(path), workers=0).problems]
    assert ("turned image" in kinds) == (orientation != 1)
    data = section(path)
    with data.unlocked():
        data.exif_rotation = True
    assert not validate(data, workers=0).problems


def test_the_setting_reaches_batches_and_shards(config, tmp_path):
    path = written(tmp_path, lines())
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    for file in tmp_path.glob("*.png"):
        with Image.open(file) as picture:
            picture.save(file, exif=exif)
    with config.unlocked():
        config.data.update(section(path))
        config.data.update(height=16, width=8, frames=1, workers=0)
        config.data.exif_rotation = False

    def first_frame() -> np.ndarray:
        _, test = datasets.read(config.data)
        with pipeline.evaluation_batches(test, config) as batches:
            return next(batches).frames[0, 0, 0].copy()

    lying = first_frame()
    config.data.exif_rotation = True
    turned = first_frame()
    assert not np.array_equal(lying, turned)
    encoding = Encoding("png", 16, 8, exif_rotation=True)
    prepare(config.data, str(tmp_path / "out"), encoding=encoding, workers=0)
    config.data.root = str(tmp_path / "out")
    assert np.array_equal(first_frame(), turned)
    config.data.exif_rotation = False
    with pytest.raises(InputError, match="encoded with data.exif_rotation = True"):
        first_frame()


def test_a_turned_picture_is_warned_of_once_where_nobody_turns_it(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "warned", [])
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 8
    for name in ("1.jpg", "2.jpg"):
        saved(tmp_path / name, exif=exif)
        pictures.decoded(str(tmp_path / name), upright=True)
    assert not caplog.text
    for name in ("1.jpg", "2.jpg"):
        pictures.decoded(str(tmp_path / name))
    assert "1.jpg is stored turned" in caplog.text and "2.jpg" not in caplog.text


@pytest.mark.parametrize("name", ["0.tif", "0.gif", "0.webp"])
def test_pictures_of_many_pages_are_noted(name, tmp_path):
    path = written(tmp_path, lines(), lambda line: {**line, "frames": [name, *line["frames"][1:]]})
    pages = [Image.new("RGB", (8, 16), colour) for colour in ("red", "blue", "green")]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    kinds = [problem.kind for problem in validate(section(path), workers=0).problems]
    assert "many pages" in kinds
    assert np.asarray(pictures.decoded(str(tmp_path / name)).convert("RGB"))[8, 4].argmax() == 0


CONTENTS = {
    "a video: take its frames out": VIDEO,
    "UTF-16 text, as PowerShell's > writes: save it as UTF-8": '{"frames": []}\n'.encode("utf-16"),
    "UTF-16 text": '{"frames": []}\n'.encode("utf-16-be"),
    "an archive: unpack it first": b"PK\x03\x04" + bytes(100),
    "one JSON array": b'\xef\xbb\xbf [\n{"frames": ["0.png"]}]',
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a web page": b"<!DOCTYPE html><html></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
}


@pytest.mark.parametrize("words", CONTENTS)
def test_what_is_given_instead_of_a_manifest_is_named(words, tmp_path):
    path = tmp_path / "tracklets"
    path.write_bytes(CONTENTS[words])
    for read in (manifest.read_tracklets, manifest.read_splits):
        with pytest.raises(InputError) as caught:
            read(str(path))
        assert str(caught.value).startswith(f"{path} is ") and words in str(caught.value)


def test_videos_and_frames_in_the_place_of_folders(tmp_path):
    (tmp_path / "clip.MP4").write_bytes(VIDEO)
    with pytest.raises(InputError, match="holds no folder but the video 'clip.MP4': take its fra"):
        manifest.read_tracklets(str(tmp_path), "visible")
    (tmp_path / "above").mkdir()
    (tmp_path / "clip.MP4").rename(tmp_path / "above/clip.MP4")
    with pytest.raises(InputError, match="above holds no images but the video 'clip.MP4': take it"):
        manifest.read_tracklets(str(tmp_path), "visible")
    saved(tmp_path / "above/1.jpg")
    with pytest.raises(InputError, match="holds no folder but frames: .* give the folder above"):
        manifest.read_tracklets(str(tmp_path / "above"), "visible")
    assert len(manifest.read_tracklets(str(tmp_path), "visible")) == 1


FRAMES = {
    "a video": VIDEO,
    "a pointer of Git LFS": CONTENTS["a pointer of Git LFS"],
    "HEIC: convert it": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
    "empty: copy it again": b"",
    "full of zeros": bytes(100),
    "a web page": b"\n<html>",
    "PostScript, which is a program": b"%!PS-Adobe-3.0 EPSF-3.0\n",
}


@pytest.mark.parametrize("words", FRAMES)
def test_what_a_frame_is_instead_of_an_image_is_named(words, tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(FRAMES[words])
    with pytest.raises(FrameError, match=f"1.jpg is not an image but {words}") as caught:
        pictures.decoded(str(path))
    assert caught.value.kind == "no image"


def test_backslashes_are_named(tmp_path):
    path = written(tmp_path, lines(), lambda line: {**line, "frames": ["a\\0.png"]})
    with pytest.raises(InputError, match="has Windows' backslashes, write / for each"):
        datasets.read(section(path))


def test_a_name_in_other_letters_is_named(tmp_path):
    saved(tmp_path / "1.JPG")
    with pytest.raises(FrameError, match="does not exist.*its folder has '1.JPG'"):
        pictures.decoded(str(tmp_path / "1.jpg"))


class TestLayoutsOfVcm:
    """HITSZ-VCM, unpacked or edited in other ways."""

    def read(self, root):
        data = section(str(root), minimum_frames=12)
        data.dataset = "vcm"
        return datasets.read(data)

    def test_small_letters(self, tree):
        root = tree.write()
        expected = self.read(root)
        for split in ("Train", "Test"):
            (tree.root / split).rename(tree.root / split.lower())
        assert [t[1:] for t in self.read(root)[0]] == [t[1:] for t in expected[0]]

    def test_what_is_wrong_is_named(self, tree, tmp_path):
        root = tree.write()
        with pytest.raises(InputError, match="set data.root to .*vcm, which has it"):
            self.read(tmp_path)
        (tree.root / "Test/0503").rename(tree.root / "Test/503")
        with pytest.raises(InputError, match="has no folder 0503: rename 503 for 0503"):
            self.read(root)
        packed = tmp_path / "vcm.zip"
        packed.write_bytes(b"PK\x03\x04")
        with pytest.raises(InputError, match="is not a folder but an archive: unpack it first"):
            self.read(packed)
        names = tree.info("train_name.txt")
        names.write_text(names.read_text(), encoding="utf-16")
        with pytest.raises(InputError, match="train_name.txt is UTF-16.*save it as UTF-8"):
            self.read(root)


def test_a_list_of_bupt_that_names_ghosts(tmp_path):

    paths = {
        "1": {m: {"LS3": {"1": [f"1/{m}/LS3/._1.jpg", f"1/{m}/LS3/1.jpg"]}} for m in ("RGB", "IR")}
    }
    (tmp_path / "DATA/1").mkdir(parents=True)
    (tmp_path / "data_paths.json").write_text(json.dumps(paths))
    for name in ("train", "query", "gallery"):
        (tmp_path / f"{name}.txt").write_text("1 RGB/IR LS3 1\n")
    train, _ = bupt.read_splits(str(tmp_path))
    assert [len(tracklet.frames) for tracklet in train] == [1, 1]

"""Every reader of data, given damaged files: it succeeds, or raises InputError of one line."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import lines, section, written
from PIL import Image

from dinogrl_jax.data import datasets, frames, pictures
from dinogrl_jax.data.frames import FrameError
from dinogrl_jax.data.preparation import facts_of_complete, prepare
from dinogrl_jax.data.readers import bupt, manifest, prepared
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.shapes import json_value

TRIES = 150
VALUES = ("null", "[]", "{}", "-1", "1e999", "NaN", '""', '"\\ud800"', "9" * 30, "[" * 3000, "true")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Content with a few bits flipped, bytes cut, doubled or swapped, or a JSON value replaced."""
    made = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at, size = rng.randrange(len(made) + 1), rng.randrange(1, 30)
        kind = rng.randrange(5)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del made[at : at + size]
        elif kind == 2:
            made[at:at] = made[at : at + size]
        elif kind == 3:
            made[at : at + 1] = bytes(rng.randrange(256) for _ in range(size % 4))
        else:  # what stands behind a colon
            colons = [i for i, x in enumerate(made) if x == ord(":")]
            if colons:
                start = rng.choice(colons) + 1
                ends = [i for i in range(start, len(made)) if made[i] in b",}\n"]
                made[start : ends[0] if ends else None] = rng.choice(VALUES).encode()
    return bytes(made)


def survives(path: Path, read: Callable[[], object]) -> None:
    """Read many damaged copies of a file in its place."""
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(TRIES):
        path.write_bytes(damaged(whole, rng))
        try:
            read()
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 4000
    path.write_bytes(whole)
    read()
    assert refused > TRIES // 10


def test_manifests(tmp_path):
    path = Path(written(tmp_path, lines(1, 1)))
    survives(path, lambda: manifest.read_splits(str(path)))
    survives(path, lambda: manifest.read_tracklets(str(path), "visible"))


def test_prepared_folders(tmp_path):
    prepare(section(written(tmp_path, lines(1, 1))), str(tmp_path / "out"), workers=0)
    for name in (prepared.ABOUT_FILE, prepared.INDEX_FILE):
        survives(tmp_path / "out" / name, lambda: datasets.read(section(str(tmp_path / "out"))))
    about = tmp_path / "out" / prepared.ABOUT_FILE
    survives(about, lambda: prepared.verify(str(tmp_path / "out")))


def test_the_facts_of_a_shard_of_an_unfinished_preparation(tmp_path):
    known, shard, rng, none = tmp_path / "known", tmp_path / "shard", random.Random(0), 0
    whole = json.dumps({"bytes": 3, "sha256": "00", "frames": 1}).encode()
    shard.write_bytes(b"abc")
    for _ in range(TRIES):
        known.write_bytes(damaged(whole, rng))
        none += facts_of_complete(known, shard) is None
    known.write_bytes(whole)
    assert none > TRIES // 10 and facts_of_complete(known, shard)["bytes"] == 3


def test_the_generator_s_file(tmp_path):
    path = tmp_path / "generator.json"
    sizes = {"seed": 0, "height": 32}
    nuisance = synthetic.NUISANCE._asdict()
    path.write_text(json.dumps({"format": synthetic.FORMAT, "nuisance": nuisance, **sizes}))
    survives(path, lambda: synthetic.check_generated(tmp_path, sizes))


def test_lists_of_vcm(tree):
    data = section(tree.write(), minimum_frames=12)
    data.dataset = "vcm"
    for name in ("train_name.txt", "track_test_info.txt", "query_IDX.txt"):
        survives(tree.info(name), lambda: datasets.read(data))


def test_lists_of_bupt(tmp_path):
    track = {"LS3": {"1": ["1/RGB/LS3/1_RGB_LS3_1_1.jpg"]}}
    (tmp_path / "DATA/1").mkdir(parents=True)
    (tmp_path / "data_paths.json").write_text(json.dumps({"1": {"RGB": track, "IR": track}}))
    for name in ("train", "query", "gallery"):
        (tmp_path / f"{name}.txt").write_text("1 RGB/IR LS3 1\n")
    for name in ("data_paths.json", "train.txt"):
        survives(tmp_path / name, lambda: bupt.read_splits(str(tmp_path)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, on damaged TIFF and EXIF
@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_pictures(kind, tmp_path):
    path, whole, rng, refused = tmp_path / "1.jpg", io.BytesIO(), random.Random(0), 0
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    Image.fromarray(pixels).save(whole, kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
    for _ in range(TRIES):
        path.write_bytes(damaged(whole.getvalue(), rng))
        try:
            pictures.decoded(str(path), upright=True)
        except FrameError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 5


def message(field: bytes) -> bytes:
    return b"\n" + bytes([len(field)]) + field


def test_records():
    content = message(message(message(b"image") + message(message(message(b"pixels")))))
    assert frames.image_feature(content) == b"pixels"
    rng, refused = random.Random(0), 0
    for _ in range(10 * TRIES):
        try:
            frames.image_feature(damaged(content, rng))
        except (ValueError, IndexError, StopIteration):
            refused += 1
    assert refused > TRIES


SHAPE = {"a": int, "b?": [(int, str)], "c?": {...: {"d": bool}}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(JSON)
def test_json_of_any_shape(value):
    def fits() -> bool:
        if not isinstance(value, dict) or type(value.get("a")) is not int:
            return False
        some, inner = value.get("b", []), value.get("c", {})
        return (
            isinstance(some, list)
            and all(type(x) in (int, str) for x in some)
            and isinstance(inner, dict)
            and all(isinstance(x, dict) and type(x.get("d")) is bool for x in inner.values())
        )

    try:
        found = json_value(json.dumps(value), SHAPE)
    except InputError as error:
        assert not fits() and "\n" not in str(error)
    else:
        assert fits() and found == value


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_json_that_is_none(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(InputError):
            json_value(text)
    else:
        assert json_value(text) == expected or expected != expected

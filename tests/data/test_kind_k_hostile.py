"""Hostile files: no program runs, nothing waits, nothing outside is copied, memory has limits."""

import json
import os
import stat
import struct
import zlib
from pathlib import Path

import pytest
from manifests import lines, section, written
from PIL import Image

from dinogrl_jax.data import datasets, frames, pictures
from dinogrl_jax.data.checks.frame_files import decoding_problems
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.frames import FrameError
from dinogrl_jax.data.preparation import prepare
from dinogrl_jax.data.readers import lines as text_lines
from dinogrl_jax.data.readers import manifest, prepared
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write, draft_of, read_bytes, read_json, write_json
from dinogrl_jax.interface.text import printable

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 64\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho >{ran}\nexit 1\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "1.jpg").write_bytes(POSTSCRIPT)
    Image.init()
    with Image.open(tmp_path / "1.jpg") as picture, pytest.raises(Exception):  # noqa: B017
        picture.load()  # Pillow alone starts it
    assert ran.exists()
    ran.unlink()
    with pytest.raises(FrameError, match="PostScript"):
        pictures.decoded(str(tmp_path / "1.jpg"))
    (problem,) = decoding_problems([(str(tmp_path / "1.jpg"), "visible")])
    assert problem.kind == "no image" and not ran.exists()


@pytest.mark.parametrize("name", ["PCX", "TGA", "ICO", "SGI", "PDF", "EPS"])
def test_formats_that_are_not_listed_are_refused(name, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png", name)
    with pytest.raises(FrameError, match="is not an image"):
        pictures.decoded(str(tmp_path / "1.png"))


@pytest.mark.parametrize("name", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_formats_that_are_listed_are_read_whatever_their_name(name, tmp_path):
    Image.new("RGB", (16, 8)).save(tmp_path / "1.jpg", name)
    assert pictures.decoded(str(tmp_path / "1.jpg")).size == (16, 8)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))


@pytest.mark.parametrize("size", [(50_000, 1_001), (13_000, 13_000), (60_000, 60_000)])
def test_huge_pictures_are_refused_by_their_header(size, tmp_path):
    (tmp_path / "1.png").write_bytes(png_header(*size))
    with pytest.raises(FrameError, match="1.png (has .* megapixels, more than 50|is too large)"):
        pictures.decoded(str(tmp_path / "1.png"))
    with pytest.raises(FrameError) as caught:
        pictures.check_picture("1.png", png_header(*size))
    assert caught.value.kind == "huge image"


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, device], ids=["FIFO", "device"])
def test_nothing_waits_for_a_fifo_or_reads_a_device(make, tmp_path):
    path = tmp_path / "1.jpg"
    make(path)
    with pytest.raises(FrameError, match="1.jpg is a (FIFO|device), not a file"):
        pictures.decoded(str(path))
    for read in (frames.file_bytes, text_lines.numbered_lines, read_json):
        with pytest.raises(InputError, match="is a (FIFO|device), not a file"):
            read(str(path))
    with pytest.raises(InputError, match="is a (FIFO|device), not a file"):
        manifest.read_tracklets(str(path))
    root = written(tmp_path, lines(), lambda line: {**line, "frames": ["1.jpg"]})
    with pytest.raises(InputError, match="'1.jpg' is no file but a FIFO, a device or a socket"):
        datasets.read(section(root))


def test_only_pictures_are_copied_into_shards(tmp_path):
    secret = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAA\n"
    (tmp_path / "id_ed25519").write_bytes(secret)
    path = written(tmp_path, lines(), lambda line: {**line, "frames": ["0.png", "id_ed25519"]})
    with pytest.raises(InputError, match="id_ed25519 is not an image"):
        prepare(section(path), str(tmp_path / "out"), workers=0)
    for file in (tmp_path / "out").iterdir():
        assert secret[:35] not in file.read_bytes()
    assert not prepared.is_prepared(str(tmp_path / "out"))


@pytest.fixture
def packed(tmp_path) -> Path:
    """A prepared manifest."""
    prepare(section(written(tmp_path, lines())), str(tmp_path / "out"), workers=0)
    return tmp_path / "out"


def test_an_index_that_was_changed_is_refused(packed):
    index = packed / prepared.INDEX_FILE
    assert len(datasets.read(section(str(packed)))[0]) == 12
    whole = index.read_text()
    for old, new in (('"identity": 1', '"identity": 2'), ('"camera": 1', '"camera": 2')):
        index.write_text(whole.replace(old, new, 1))
        with pytest.raises(InputError, match="tracklets.jsonl is not what was written"):
            datasets.read(section(str(packed)))
    index.write_text(whole[: whole.rindex("\n", 0, -1) + 1])
    with pytest.raises(InputError, match="tracklets.jsonl is not what was written"):
        datasets.read(section(str(packed)))


@pytest.mark.parametrize("name", [prepared.ABOUT_FILE, prepared.INDEX_FILE])
@pytest.mark.parametrize(
    "content", ["[]", "null", "1", "{}", '"x"', "[" * 100_000, '{"settings": 0}', '{"a":' * 99]
)
def test_json_of_another_shape_is_refused(packed, name, content):
    (packed / name).write_text(content + "\n")
    with pytest.raises(InputError) as caught:
        datasets.read(section(str(packed)))
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert validate(section(str(packed)), workers=0).fatal


def test_a_shard_outside_the_folder_is_refused(packed):
    index, about = packed / prepared.INDEX_FILE, read_json(packed / prepared.ABOUT_FILE)
    shard = json.loads(index.read_text().splitlines()[0])["shard"]
    index.write_text(index.read_text().replace(shard, f"../elsewhere/{shard}"))
    about["files"][prepared.INDEX_FILE] = prepared.file_facts(str(index))
    write_json(packed / prepared.ABOUT_FILE, about)
    with pytest.raises(InputError, match="tracklets.jsonl:1: is damaged"):
        datasets.read(section(str(packed)))


def test_long_names_and_lines_are_refused(tmp_path, monkeypatch):
    path = written(tmp_path, lines(), lambda line: {**line, "identity": "x" * 10_000})
    with pytest.raises(InputError, match="identity has 10000 letters, more than 200") as caught:
        datasets.read(section(path))
    assert len(str(caught.value)) < 3000
    monkeypatch.setattr(manifest, "LONGEST_LINE", 100)
    with pytest.raises(InputError, match="line 1 is longer than"):
        datasets.read(section(path))
    with pytest.raises(InputError, match="is larger than 0 MiB"):
        read_bytes(path, 1000)


def test_names_do_not_reach_a_terminal_as_they_are(tmp_path):
    assert printable("a\x1b[2J\n\u202eb\ud800é数") == "a\\x1b[2J\\n\\u202eb\\ud800é数"
    name = "\x1b[31m\nerror: 1.png"
    (tmp_path / name).write_bytes(b"none")
    with pytest.raises(FrameError) as caught:
        pictures.decoded(str(tmp_path / name))
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    path = written(tmp_path, lines(), lambda line: {**line, "frames": [name]})
    text = validate(section(path), workers=0).text(5)
    assert "\x1b" not in text and "\\x1b[31m\\nerror: 1.png is not an image" in text
    path = written(tmp_path, lines(), lambda line: {**line, "\x1b[2J": 1, "frames": ["\x1b"]})
    with pytest.raises(InputError) as caught:
        datasets.read(section(path))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "record", [b"\xff" * 2_000_000, b"\n\xff\xff\xff\x7f", b"\n", b"", b"\n\0"]
)
def test_records_that_are_none_end_at_once(record):
    with pytest.raises((ValueError, IndexError, StopIteration)):
        frames.image_feature(record)


def test_long_names_of_records_are_looked_at_once():
    for name in (
        ".array_record-1" * 100_000,
        ".array_record-" + "1" * 1_000_000 + "#",
        "#" * 10**6,
    ):
        assert not frames.is_record(name)
    assert frames.record_place("a.array_record-x/b.array_record-00001-of-00002#7") == (
        "a.array_record-x/b.array_record-00001-of-00002",
        7,
    )


def test_a_planted_draft_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("whole")
    with draft_of(tmp_path / "x.json") as draft:
        name = draft.name
        draft.touch()
    (tmp_path / name).symlink_to(victim)
    write_json(tmp_path / "x.json", 1)
    assert victim.read_text() == "whole" and read_json(tmp_path / "x.json") == 1
    with pytest.raises(InputError), atomic_write(tmp_path / "y.json") as file:
        file.write(b"1")
        for other in tmp_path.glob(".y.json.*"):
            other.unlink()  # somebody takes it away
    assert not (tmp_path / "y.json").exists()


def test_drafts_of_dead_processes_are_removed(tmp_path):
    with draft_of(tmp_path / "x") as draft:
        start = draft.name.rpartition("-")[0]
        draft.touch()
    (tmp_path / f"{start}-999999999").mkdir()
    (tmp_path / f"{start}-{os.getppid()}").touch()  # which lives
    write_json(tmp_path / "x", 1)
    assert sorted(os.listdir(tmp_path)) == sorted([f"{start}-{os.getppid()}", "x"])


def test_numbers_that_no_array_holds_are_refused(tree):
    tree.lines["track_train_info.txt"][0] = "1 1 12 0001 99999999999"
    data = section(tree.write(), minimum_frames=12)
    data.dataset = "vcm"
    with pytest.raises(InputError, match="track_train_info.txt:1: camera 99999999999 is not"):
        datasets.read(data)
    tree.lines["track_train_info.txt"][0] = f"1 1 12 {'9' * 5000} 11"
    tree.write()
    with pytest.raises(InputError, match="track_train_info.txt:1: '9{40}' is not a whole number"):
        datasets.read(data)

"""Uploads that are too much, broken or meant to harm: one line each, and the next one is served."""

import os
import signal
import socket
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest
import served
import videos
from PIL import Image

from dinogrl_jax.retrieval.server import decoders, decoding, service
from dinogrl_jax.retrieval.server.decoders import Decoders, Limits
from dinogrl_jax.retrieval.server.decoding import Refused
from dinogrl_jax.retrieval.server.guard import Access

FRAME = served.png(Image.new("RGB", (20, 40), (90, 60, 30)))
LIMITS = Limits(frames=4, pixels=20_000, seconds=20)
MULTIPART = "Content-Type: multipart/form-data; boundary=x\r\n"
ACCESS = Access(upload=200_000, seconds=5, waiting=3)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """The folder of temporary files."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield Path(tempfile.tempdir)
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def small_client(model, gallery, temporary):
    """A server that allows little."""
    with served.served(model, gallery.folder, ACCESS, LIMITS) as client:
        yield client


@pytest.fixture(autouse=True)
def others_are_served(small_client, temporary):
    """Whatever came before: a good clip is answered, and no file is left."""
    yield
    assert small_client.search([("a.png", FRAME)]).status_code == 200
    assert not list(temporary.iterdir())


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose picture has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        told = kind + content
        return struct.pack(">I", len(content)) + told + struct.pack(">I", zlib.crc32(told))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(1 << 20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


def video(tmp_path, count: int = 3, name: str = "v.mp4") -> bytes:
    small = videos.scene(0)[:40, :32].copy()
    return videos.written(tmp_path / name, count, lambda number: small).read_bytes()


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ([("a.png", bomb(60000, 60000))], 413, "a.png is too large"),
        ([("a.png", bomb(9000, 9000))], 413, "a.png has 81 megapixels, more than 50"),
        ([("a.png", bomb(200, 200))], 413, "more than 0.02 million pixels"),
        ([("a.png", FRAME)] * 5, 413, "the clip has 5 frames, more than 4"),
        ([("a.png", b"")], 415, "a.png is not an image but empty"),
        ([("a.png", FRAME), ("b.png", FRAME[:60])], 422, "b.png is a damaged image"),
        ([("a.png", b"<script>alert(1)</script>")], 415, "a.png is not an image"),
        ([("a.png", b"%!PS-Adobe-3.0\n(x) run")], 415, "PostScript, which is a program"),
        ([("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")], 415, "a web page or XML"),
        ([("a.png", served.png(Image.new("I;16", (9, 9))))], 422, "more than 8 bits a channel"),
        ([("../../etc/passwd", b"x")], 415, "passwd is not an image"),
        ([("..\\..\\boot.ini", b"x")], 415, "boot.ini is not an image"),
        ([("/", b"x")], 415, "file 0 is not an image"),
        ([(served.HOSTILE, b"x")], 415, "alert(1)>&\"'"),
        ([("a" * 500 + ".png", b"x")], 415, "aaa.png is not an image"),
        ([("\x1b[2J.png", b"x")], 415, "\\x1b[2J.png is not an image"),
    ],
)
def test_pictures(files, status, said, small_client):
    text = served.line(small_client.search(files), status)
    assert said.replace('"', "%22") in text.replace('"', "%22") and len(text) < 300


def test_no_frames(small_client):
    said = served.line(small_client.ask("POST", "/search", data={"modality": "visible"}), 422)
    assert "no frames" in said
    said = served.line(small_client.ask("POST", "/search", data={"files": "x"}), 422)
    assert "files" in said


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"modality": "thermal"}, "modality: Input should be 'visible' or 'infrared'"),
        ({"k": "0"}, "k: Input should be greater than or equal to 1"),
        ({"k": "9" * 5000}, "k: "),
        ({"since": "yesterday"}, "time 'yesterday': give ISO 8601"),
        ({"until": "nan"}, "time 'nan': give ISO 8601"),
        ({"modalities": ["visible", "x"]}, "modalities.1: Input should be"),
    ],
)
def test_values(form, said, small_client):
    text = served.line(
        small_client.search([("a.png", FRAME)], **{"modality": "visible", **form}), 422
    )
    assert said in text


def test_videos(small_client, tmp_path):
    good = video(tmp_path)
    assert small_client.search([("v.mp4", good)]).json()["frames"] == 3
    text = served.line(small_client.search([("v.mp4", video(tmp_path, 5))]), 413)
    assert "more than 4 frames" in text
    both = [("v.mp4", good), ("a.png", FRAME)]
    assert "v.mp4 is a video" in served.line(small_client.search(both), 422)
    for length in (40, len(good) // 3, len(good) * 2 // 3):
        text = served.line(small_client.search([("<v>.mp4", good[:length])]), 422)
        assert text.startswith("<v>.mp4: ") and "/clip-" not in text
    cut = video(tmp_path, 4, "v.avi")
    text = served.line(small_client.search([("v.avi", cut[: len(cut) // 2])]), 422)
    assert "v.avi" in text and "damaged" in text


def test_a_video_where_pyav_is_not_there(monkeypatch, tmp_path):
    (tmp_path / "v").write_bytes(video(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    job = {"paths": [str(tmp_path / "v")], "names": ["v"], "deep_range": []} | LIMITS._asdict()
    answer, _ = decoding.answer_of(job)
    assert answer["status"] == 501 and "pip install 'dinogrl_jax[video]'" in answer["error"]


def connected(client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(client.address.rpartition(":")[2])), 30)


def head(length: int) -> bytes:
    lines = ("POST /search HTTP/1.1", "Host: localhost", f"Content-Length: {length}", MULTIPART)
    return "\r\n".join((*lines, "", "--x")).encode()


def test_too_many_bytes(small_client):
    with connected(small_client) as s:
        s.sendall(head(99_999_999))
        assert s.recv(100).startswith(b"HTTP/1.1 413")  # before anything has come

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        yield from (bytes(50_000) for _ in range(8))

    name, kind = MULTIPART.strip().split(": ")
    try:  # nobody says before how many will come
        answer = small_client.ask("POST", "/search", {name: kind}, data=pieces())
    except OSError:  # it is closed while the rest is sent
        answer = None
    assert answer is None or "more than 0.190735 MiB" in served.line(answer, 413)


def test_a_slow_upload(small_client):
    with connected(small_client) as s:
        s.sendall(head(9999))
        said = s.recv(4000)
    assert said.startswith(b"HTTP/1.1 408") and b"longer than 5 s" in said


def test_too_many_at_a_time(small_client):
    waiting = [connected(small_client) for _ in range(ACCESS.waiting)]
    for one in waiting:
        one.sendall(head(9999))
    end = time.monotonic() + 200
    while (answer := small_client.search([("a.png", FRAME)])).status_code == 200:
        assert time.monotonic() < end
    assert "3 requests wait already" in served.line(answer, 503) and answer.headers["retry-after"]
    for one in waiting:
        one.close()
    while small_client.search([("a.png", FRAME)]).status_code != 200:
        assert time.monotonic() < end


def test_a_broken_form(small_client):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\nnonsense", b"", b"--y--", b"\0" * 1000):
        answer = small_client.ask("POST", "/search", headers, data=body)
        assert answer.status_code in (400, 422) and "\n" not in served.line(
            answer, answer.status_code
        )
    fields = {f"f{i}": "x" for i in range(1100)}
    files = {"files": ("a.png", FRAME)}
    answer = small_client.ask("POST", "/search", data=fields, files=files)
    assert "Too many fields" in served.line(answer, 400)


@pytest.fixture
def patched(tmp_path, monkeypatch):
    """Decoders whose program does something bad before it decodes."""

    def made(bad: str, **limits) -> Decoders:
        program = tmp_path / "bad_decoding.py"
        program.write_text(
            "import ctypes, os, socket, sys, time\n"
            "from dinogrl_jax.retrieval.server import decoding\n"
            f"def bad(job):\n    {bad}\n    return 0\n"
            "decoding.clip_pictures = bad\n"
            "decoding.fork_for_jobs(socket.socket(fileno=int(sys.argv[1])))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(decoders, "PROGRAM", "bad_decoding")
        return Decoders(Limits(**limits))

    return made


@pytest.mark.parametrize(
    ("bad", "status", "said"),
    [
        ("time.sleep(60)", 422, "longer than 1 s"),
        ("while True: pass", 422, "longer than 1 s"),
        ("ctypes.string_at(0)", 422, "the decoder failed"),
        ("os._exit(3)", 422, "the decoder failed"),
        ("os.kill(os.getpid(), 9)", 422, "the decoder failed"),
        ("bytes(1 << 40)", 413, "too much memory"),
        ("open('/tmp/written-by-a-decoder', 'wb').write(bytes(99))", 422, "the decoder failed"),
        ("job['frames'] / 0", 422, "the decoder failed"),
    ],
)
def test_a_decoder_that_hangs_or_dies(bad, status, said, patched):
    made = patched(bad, seconds=1 if "longer" in said else 100)  # the others have to have the time
    try:
        for _ in range(2):
            with pytest.raises(Refused, match=said) as error:
                made.clip(["x"], ["x"])
            assert error.value.status == status
        assert not Path("/tmp/written-by-a-decoder").exists() or not os.path.getsize(
            "/tmp/written-by-a-decoder"
        )
    finally:
        made.close()
        Path("/tmp/written-by-a-decoder").unlink(missing_ok=True)


def test_the_forking_process_is_started_again(tmp_path):
    made = Decoders()
    (tmp_path / "a.png").write_bytes(FRAME)
    try:
        (picture,) = made.clip([str(tmp_path / "a.png")], ["a.png"])
        os.kill(made._process.pid, signal.SIGKILL)
        made._process.wait()
        (again,) = made.clip([str(tmp_path / "a.png")], ["a.png"])
        assert picture.shape == again.shape == (40, 20, 3)
    finally:
        made.close()


def test_a_slow_one_holds_up_nobody(patched, tmp_path):
    made = patched("time.sleep(60) if job['paths'] == ['slow'] else decoding.x", seconds=8)
    refusals = []

    def ask(path):
        began = time.monotonic()
        with pytest.raises(Refused) as error:
            made.clip([path], [path])
        refusals.append((path, str(error.value), time.monotonic() - began))

    threads = [threading.Thread(target=ask, args=(x,)) for x in ("slow", "a", "b")]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        made.close()
    assert [x[0] for x in refusals][-1] == "slow" and "longer" in refusals[-1][1]


def test_a_full_disk(small_client, monkeypatch):
    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service.shutil, "copyfileobj", no_room)
    text = served.line(small_client.search([("a.png", FRAME)]), 507)
    assert text == "the server's disk is full"
    monkeypatch.undo()

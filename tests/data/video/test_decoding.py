"""Videos as they come: of several containers and codecs, turned, grey, damaged, hostile."""

import os
import sys

import av
import numpy as np
import pytest
import videos

from dinogrl_jax.data.video import decoding
from dinogrl_jax.data.video.decoding import video_pictures
from dinogrl_jax.interface.errors import InputError


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "ffv1"), ("a.ts", "mpeg2video")],
)
def test_pictures_and_times(name, codec, tmp_path):
    path = videos.written(tmp_path / name, codec=codec)
    pictures = [(p.number, p.seconds, p.pixels()) for p in video_pictures(str(path))]
    assert [number for number, *_ in pictures] == list(range(20))
    assert np.allclose([seconds for _, seconds, _ in pictures], np.arange(20) / videos.RATE)
    # Codecs lose something of what is in a picture, and colours have half the resolution.
    errors = [np.abs(p.astype(int) - videos.scene(n)).mean() for n, _, p in pictures]
    assert max(errors) < 8


def test_a_clock_that_runs_unevenly(tmp_path):
    times = [0, 1, 2, 7, 8, 20]
    path = str(videos.written(tmp_path / "a.mkv", 6, times=times))
    assert np.allclose([p.seconds for p in video_pictures(path)], np.array(times) / 10)
    assert np.allclose([p.seconds for p in video_pictures(path, rate=4.0)], np.arange(6) / 4)


def test_grey_and_deep_pictures_keep_their_values(tmp_path):
    def grey(number):
        return videos.scene(number)[:, :, 0]

    for name, picture in (("grey.mkv", grey), ("deep.mkv", videos.thermal)):
        path = videos.written(tmp_path / name, 3, picture, "ffv1")
        for found in video_pictures(str(path)):
            pixels = found.pixels()
            assert pixels.dtype == picture(0).dtype
            assert np.array_equal(pixels, picture(found.number))


def test_pictures_are_turned_as_players_turn_them(tmp_path):
    path = videos.written(tmp_path / "a.mp4", 2)
    before = next(video_pictures(str(path))).pixels()
    videos.turned(path)
    turned = next(video_pictures(str(path)))
    assert (turned.width, turned.height) == (videos.HEIGHT, videos.WIDTH)
    assert np.array_equal(turned.pixels(), np.rot90(before, -1))
    stored = next(video_pictures(str(path), upright=False))
    assert np.array_equal(stored.pixels(), before)


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        list(video_pictures(str(path), **options))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_video_that_is_cut_off(name, tmp_path):
    path = videos.written(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off" in refused(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\0" * 4000, "full of zeros"),
        (b"text " * 1000, "is no video"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "a picture, no video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n", "is no video"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "is no video"),
        (b"<?xml version='1.0'?><MPD></MPD>", "XML"),
    ],
)
def test_what_is_no_video(content, reason, tmp_path):
    videos.written(tmp_path / "other.mp4", 2)  # which a playlist would open
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert reason in refused(path)


def test_files_that_cannot_be_opened(tmp_path):
    assert "cannot be read" in refused(tmp_path / "none.mp4")
    assert "cannot be read" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="is a FIFO"):
        list(video_pictures(str(tmp_path / "fifo")))


def test_sound_alone(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "has no pictures" in refused(path)


def test_pictures_that_are_too_large(tmp_path, monkeypatch):
    path = videos.written(tmp_path / "a.mp4")
    monkeypatch.setattr(decoding, "MOST_PIXELS", videos.WIDTH * videos.HEIGHT - 1)
    assert "its pictures have more than" in refused(path)


def test_a_codec_of_no_camera(tmp_path):
    path = videos.written(tmp_path / "a.avi", 2, codec="snow")
    assert "its codec, snow, is none of h264" in refused(path)


def test_pyav_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'dinogrl_jax\[video\]'"):
        decoding.pyav()

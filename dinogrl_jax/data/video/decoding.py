"""Pictures of a video, decoded by PyAV, which is FFmpeg in this process.

A video from outside is hostile until decoded. FFmpeg gets the opened file and no name, so that a
playlist opens nothing else; only the containers and codecs of cameras are read; a picture has a
largest size, also for the decoder. What FFmpeg's decoders themselves get wrong is not limited:
whoever reads videos of strangers does it in a container, as docs/video.md says.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from dinogrl_jax.data.pictures import MOST_PIXELS
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import open_file
from dinogrl_jax.interface.text import HEAD, content_words

FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg"),
    *("mpegvideo", "h264", "hevc", "m4v", "asf", "flv", "ogg", "mxf", "nut", "ivf", "mjpeg"),
)
CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg1video"),
    *("mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv"),
    *("wmv1", "wmv2", "wmv3", "vc1", "mjpeg", "theora", "ffv1", "huffyuv", "ffvhuff", "rawvideo"),
    *("png", "prores", "dnxhd", "dvvideo", "utvideo", "jpeg2000"),
)
DEEP = ("gray9", "gray10", "gray12", "gray14", "gray16")  # formats of thermal cameras
THREADS = 4  # of a decoder


class VideoPicture(NamedTuple):
    """A picture of a video that is decoded, but not converted yet."""

    number: int  # from 0 on, in the order in which they are shown
    seconds: float  # from the video's first picture on, by the stream's clock
    width: int  # as shown
    height: int
    frame: Any  # PyAV's
    turns: int  # quarter turns against the clock that show it upright

    @property
    def damaged(self) -> bool:
        """Whether the decoder says that it has filled a hole in the picture."""
        return self.frame.is_corrupt

    def pixels(self) -> UInt[np.ndarray, "h w ..."]:
        """RGB in 8 bits; of a grey video one channel, in 16 bits where it has more than 8."""
        return np.rot90(_stored_pixels(self.frame), self.turns)


def pyav() -> ModuleType:
    """PyAV; InputError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            "videos are read by PyAV, which is not installed: pip install 'dinogrl_jax[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # what FFmpeg prints of damaged videos
    return av


def video_pictures(
    path: str, rate: float | None = None, upright: bool = True
) -> Iterator[VideoPicture]:
    """The pictures of a video's first stream, in the order in which they are shown.

    rate: pictures a second, in the place of the stream's clock. upright: turned as the file says
    that players show them, as OpenCV and FFmpeg turn them for a tracker.

    Raises InputError for a file that is no video or one of another kind, that is damaged or cut
    off, whose pictures are too large, change their size or have no times.
    """
    with _opened(path) as (av, stream):
        size, first, last = None, None, -1.0
        for number, frame in enumerate(_decoded(av, stream, path)):
            turns = _quarter_turns(frame.rotation, path) if upright else 0
            shape = (frame.width, frame.height)[:: -1 if turns % 2 else 1]
            size = size or shape
            if shape != size:
                change = f"{size[0]}×{size[1]} to {shape[0]}×{shape[1]} pixels"
                raise InputError(
                    f"{path}: changes from {change} at picture {number + 1}: cut it there"
                )
            time = Fraction(number) / Fraction(rate) if rate else _time(frame, path)
            first = time if first is None else first
            seconds = float(time - first)
            if seconds < last:
                raise InputError(
                    f"{path}: its clock goes back at picture {number + 1}: say --rate, pictures "
                    "a second"
                )
            last = seconds
            yield VideoPicture(number, seconds, *size, frame, turns)


def header_count(path: str) -> int:
    """How many pictures a video's header promises; 0 where it says nothing."""
    with _opened(path) as (_, stream):
        return stream.frames


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[ModuleType, Any]]:
    """PyAV and the first video stream of a file, which is closed behind the block."""
    av = pyav()
    try:
        file = open_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        head = file.read(HEAD)
        file.seek(0)
        limits = {"max_pixels": str(MOST_PIXELS), "codec_whitelist": ",".join(CODECS)}
        options = limits | {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
        try:
            container = av.open(file, options=options, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            raise InputError(f"{path}: {_unknown_words(head)}") from error
        with container:
            streams = container.streams.video
            if not streams:
                raise InputError(f"{path}: has no pictures, or its index is cut off: copy it again")
            _check_stream(streams[0], path)
            streams[0].codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            streams[0].thread_type = "AUTO"
            streams[0].codec_context.thread_count = THREADS
            yield av, streams[0]


def _check_stream(stream: Any, path: str) -> None:
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS:
        name = codec.name if codec else "unknown"
        raise InputError(f"{path}: its codec, {name[:40]}, is none of {', '.join(CODECS)}")


def _unknown_words(head: bytes) -> str:
    words = content_words(head)
    if not words or words.startswith("a video"):
        return "is no video, or one that is damaged or cut off: copy it again, or convert it to MP4"
    return f"is {words.partition(':')[0]}, no video"


def _decoded(av: ModuleType, stream: Any, path: str) -> Iterator[Any]:
    """The frames; InputError says after how many the file is damaged."""
    count = 0
    try:
        for frame in stream.container.decode(stream):
            count += 1
            yield frame
    except (av.error.FFmpegError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        what = f"is damaged or cut off behind picture {count}"
        if not count:
            most = f"{MOST_PIXELS / 1e6:.0f} million pixels"
            what = f"cannot be decoded: it is damaged, or its pictures have more than {most}"
        raise InputError(f"{path}: {what} ({str(reason)[:80]})") from error
    if not count:
        raise InputError(f"{path}: has no picture that can be decoded")


def _time(frame: Any, path: str) -> Fraction:
    if frame.pts is None or not frame.time_base:
        raise InputError(f"{path}: its pictures have no times: say --rate, pictures a second")
    return frame.pts * frame.time_base


def _quarter_turns(angle: int, path: str) -> int:
    """Of a rotation against the clock, in degrees, by which players turn the stored picture."""
    if angle % 90:
        raise InputError(f"{path}: is to be shown turned by {angle}°, no quarter turns: convert it")
    return angle // 90 % 4


def _stored_pixels(frame: Any) -> UInt[np.ndarray, "h w ..."]:
    name = frame.format.name
    deep, order = name[:-2], name[-2:]
    if deep in DEEP and order in ("le", "be"):
        plane = frame.planes[0]
        values = np.frombuffer(plane, "<u2" if order == "le" else ">u2")
        values = values[: plane.line_size // 2 * frame.height].reshape(frame.height, -1)
        return values[:, : frame.width].astype(np.uint16)
    if name in ("gray", "gray8"):
        return frame.to_ndarray()
    return frame.to_ndarray(format="rgb24")

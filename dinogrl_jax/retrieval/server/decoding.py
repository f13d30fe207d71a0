"""Pictures from outside, decoded by a process that does nothing else and then ends.

    python -m dinogrl_jax.retrieval.server.decoding NUMBER

`decoders` starts it: a process that has imported Pillow and PyAV and forks for each job that it
gets through the socket of that number. A decoder is C code that reads what a stranger made, and may
hang, crash or take all memory. A fork costs a few milliseconds, sees no other upload, has limits
that the system itself enforces, and nobody misses it.

A job is one object of JSON; the answer is another one, a line, and the bytes that it announces.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dinogrl_jax.data.frames import FrameError, HeldFrame
from dinogrl_jax.data.pictures import decoded
from dinogrl_jax.data.video.decoding import pyav, video_pictures
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import file_words
from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.report.frames import small_jpeg

MEMORY = 4 << 30  # bytes of addresses that a job may have
FILES = 64  # that it may have open
STATUS = {"huge image": 413, "no image": 415}  # by a FrameError's kind; 422 for the others
UNREADABLE, TOO_LARGE, NOT_INSTALLED = 422, 413, 501


class Refused(Exception):
    """A job ends with a line, and the status of HTTP that fits it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def clip_pictures(job: dict) -> list[UInt8[np.ndarray, "_ _ ..."]]:
    """The pictures of a clip's files: of several images, or of one video.

    job: `paths`, the `names` that people know them by, `frames` and `pixels` that a clip may have,
    and `upright` and `deep_range` as `pictures.decoded` takes them.
    """
    paths = job["paths"]
    videos = [name for path, name in zip(paths, job["names"], strict=True) if is_video(path)]
    if videos and len(paths) > 1:
        raise Refused(
            UNREADABLE, f"{videos[0]} is a video: a clip is several pictures, or one video"
        )
    made, pixels = [], 0
    for picture in (video_frames if videos else image_frames)(job):
        pixels += picture.width * picture.height
        if len(made) == job["frames"]:
            raise Refused(TOO_LARGE, f"the clip has more than {job['frames']} frames: cut it")
        if pixels > job["pixels"]:
            most = f"{job['pixels'] / 1e6:g} million pixels"
            raise Refused(TOO_LARGE, f"the clip has more than {most}: give fewer or smaller frames")
        picture = picture if picture.mode in ("RGB", "L") else picture.convert("RGB")
        made.append(np.asarray(picture))
    return made


def is_video(path: str) -> bool:
    return file_words(path).startswith("a video")


def image_frames(job: dict) -> Iterator[Image.Image]:
    for path, name in zip(job["paths"], job["names"], strict=True):
        try:
            yield decoded(path, job["upright"], job["deep_range"])
        except FrameError as error:
            status = STATUS.get(error.kind, UNREADABLE)
            raise Refused(status, f"{name} {error.reason}") from error


def video_frames(job: dict) -> Iterator[Image.Image]:
    (path,), (name,) = job["paths"], job["names"]
    try:
        pyav()
    except InputError as error:
        raise Refused(NOT_INSTALLED, str(error)) from error
    try:
        for one in video_pictures(path):
            title = f"{name}: picture {one.number + 1}"
            if one.damaged:
                raise Refused(UNREADABLE, f"{title} is damaged: copy the video again")
            picture = Image.fromarray(np.ascontiguousarray(one.pixels()))
            yield decoded(HeldFrame(title, picture), deep_range=job["deep_range"])
    except InputError as error:
        raise Refused(UNREADABLE, str(error).replace(path, name)) from error


def answer_of(job: dict) -> tuple[dict, Sequence[bytes]]:
    """What answers a job, and the bytes behind it: pictures of `paths`, or of one `frame`."""
    try:
        if "frame" in job:
            content = small_jpeg(job["frame"])
            return {"bytes": len(content)}, [content]
        pictures = clip_pictures(job)
        return {"shapes": [x.shape for x in pictures]}, [x.tobytes() for x in pictures]
    except Refused as error:
        return {"error": printable(error), "status": error.status}, []
    except MemoryError:
        text = "decoding takes too much memory: give fewer or smaller frames"
        return {"error": text, "status": TOO_LARGE}, []


def limit(seconds: float) -> None:
    """Let the system end this process behind so many seconds, and keep it small."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(seconds) * 4 + 4),  # of several threads
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        with contextlib.suppress(ValueError, OSError):  # it is lower already
            resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def work(channel: socket.socket) -> None:
    """Answer the job that comes through a channel."""
    with channel, channel.makefile("rwb") as file:
        job = json.loads(file.readline())
        limit(job["seconds"])
        answer, content = answer_of(job)
        file.write(json.dumps(answer).encode() + b"\n")
        for piece in content:
            file.write(piece)


def fork_for_jobs(control: socket.socket) -> None:
    """Fork for each channel that comes through a socket, until it is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    while True:
        message, (*channels,), *_ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        for channel in channels:
            if not os.fork():
                try:
                    control.close()
                    work(socket.socket(fileno=channel))
                finally:
                    os._exit(0)
            os.close(channel)


if __name__ == "__main__":
    Image.init()
    with contextlib.suppress(InputError):
        pyav()
    fork_for_jobs(socket.socket(fileno=int(sys.argv[1])))

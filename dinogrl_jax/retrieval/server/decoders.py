"""Decoding in other processes, as the server asks for it."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dinogrl_jax.retrieval.server.decoding import Refused

PROGRAM = "dinogrl_jax.retrieval.server.decoding"
GRACE = 5.0  # seconds behind a job's own limit, after which nobody waits for it
PIECE = 1 << 20
LONGEST_LINE = 1 << 20


class Limits(NamedTuple):
    """What a clip may cost."""

    frames: int = 300
    pixels: int = 64_000_000  # of all its frames: 30 of 1920×1080, 2,000 of 256×128
    seconds: float = 10.0  # of decoding


class Decoders:
    """Answers jobs of `decoding`, each in a process of its own; threads may share one of these."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008
        upright: bool = False,
        deep_range: Sequence[float | int] = (),
    ) -> None:
        self.limits, self._how = limits, {"upright": upright, "deep_range": list(deep_range)}
        self._lock, self._control, self._process = threading.Lock(), None, None

    def clip(
        self, paths: Sequence[str], names: Sequence[str]
    ) -> list[UInt8[np.ndarray, "_ _ ..."]]:
        """The pictures in files, RGB or grey; names: of the files, for messages.

        Raises Refused for what is no clip, is too large, or takes too long.
        """
        job = self.limits._asdict() | self._how | {"paths": list(paths), "names": list(names)}
        answer, content = self._answer(job, self.limits.pixels * 3)
        pictures, at = [], 0
        for shape in answer["shapes"]:
            size = math.prod(shape)
            pictures.append(np.frombuffer(content, np.uint8, size, at).reshape(shape))
            at += size
        return pictures

    def small_frame(self, path: str) -> bytes:
        """A small JPEG of a frame of the gallery; empty where it cannot be read."""
        return self._answer({"frame": path, "seconds": self.limits.seconds}, PIECE)[1]

    def close(self) -> None:
        """End the process that forks; jobs at hand end by themselves."""
        with self._lock:
            self._stop()

    def _answer(self, job: dict, most: int) -> tuple[dict, bytes]:
        began = time.monotonic()
        with self._channel() as channel:
            channel.settimeout(job["seconds"] + GRACE)
            try:
                channel.sendall(json.dumps(job).encode() + b"\n")
                with channel.makefile("rb") as file:
                    line = file.readline(LONGEST_LINE)
                    answer = json.loads(line) if line.endswith(b"\n") else None
                    content = file.read(most + 1)
            except (OSError, ValueError):
                answer = None
        if answer is None or not _is_whole(answer, content):
            took = time.monotonic() - began
            if took > job["seconds"] - 0.1:
                text = f"decoding takes longer than {job['seconds']:g} s: give a shorter clip"
            else:
                text = "the decoder failed at these files: convert them, to PNG or H.264, say"
            raise Refused(422, text)
        if "error" in answer:
            raise Refused(answer["status"], answer["error"])
        return answer, content

    def _channel(self) -> socket.socket:
        """A socket to a new process, which waits for a job."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            for _ in range(2):  # again where the forking process has been killed
                if self._process is None or self._process.poll() is not None:
                    self._stop()
                    self._start()
                with contextlib.suppress(OSError):
                    socket.send_fds(self._control, [b"j"], [theirs.fileno()])
                    return ours
        ours.close()
        raise Refused(503, "the process that decodes cannot be started: see the server's memory")

    def _start(self) -> None:
        self._control, other = socket.socketpair()
        path = os.pathsep.join(x or os.getcwd() for x in sys.path)
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", PROGRAM, str(other.fileno())]
        with other:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env=environment,
            )

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            self._process.kill()
            self._process.wait()
            self._process = None


def _is_whole(answer: dict, content: bytes) -> bool:
    """Whether all bytes of an answer have come."""
    if "error" in answer:
        return True
    size = answer["bytes"] if "bytes" in answer else sum(map(math.prod, answer["shapes"]))
    return size == len(content)

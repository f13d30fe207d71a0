"""Progress of a long job: one line with the rate and the time left; and a file of all it said."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dinogrl_jax.interface.errors import InputError

AGAIN = "\r\033[K"  # a terminal's line from its beginning, empty


class Progress(contextlib.AbstractContextManager):
    """Prints `done/total unit  rate/s  time left` to stderr, at most once in `interval` seconds.

    A terminal shows one line, which is rewritten; a log file gets a new line each time. A job that
    ends within the first interval prints nothing.
    """

    def __init__(self, what: str, total: int, unit: str, interval: float = 5.0):
        self.what, self.total, self.unit = what, total, unit
        self.interval = 0.5 if sys.stderr.isatty() else interval
        self.done = 0
        self.began = self.printed = time.monotonic()

    def __exit__(self, *_) -> None:
        if self.printed > self.began:
            self._print(time.monotonic(), last=True)

    def add(self, count: int = 1) -> None:
        """Count what has been done since the last call."""
        self.done += count
        now = time.monotonic()
        if now - self.printed >= self.interval:
            self._print(now)

    def over(self, items: Iterable) -> Iterator:
        """The items; each counts as done when the next one is requested."""
        for item in items:
            yield item
            self.add()

    def _print(self, now: float, last: bool = False) -> None:
        self.printed = now
        rate = self.done / max(now - self.began, 1e-9)
        left = duration((self.total - self.done) / max(rate, 1e-9))
        line = f"{self.what}: {self.done}/{self.total} {self.unit}  {rate:.1f}/s  {left} left"
        if sys.stderr.isatty():
            print(f"{AGAIN}{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif not last:
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as `1 h 02 min`, `3 min 05 s` or `7 s`."""
    seconds = int(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds} s"


class Recorded:
    """A stream of text whose lines are also appended to a file, each with its time.

    Where the file cannot be written, the stream goes on without it; and the file without the
    stream, whose terminal may have been closed.
    """

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.line, self.began = stream, path, "", False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        # Of a line that a terminal shows again and again the last state counts.
        *lines, self.line = (x.rpartition(AGAIN)[2] for x in (self.line + text).split("\n"))
        with contextlib.suppress(OSError):
            self.append(line for line in lines if line.strip())
        with contextlib.suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()

    def append(self, lines: Iterable[str]) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        if lines := [f"{stamp} {line}\n" for line in lines]:
            with self.path.open("a", errors="backslashreplace") as file:
                file.writelines(lines)
            self.began = True


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """What the block prints is also appended to a file, and the InputError that ends it.

    An error before the first line is not in it: that may be of a file which is another run's.
    """
    with (
        contextlib.redirect_stdout(Recorded(sys.stdout, path)) as output,
        contextlib.redirect_stderr(Recorded(sys.stderr, path)) as errors,
    ):
        try:
            yield
        except InputError as error:
            if output.began or errors.began:
                with contextlib.suppress(OSError):
                    errors.append([f"error: {error}"])
            raise

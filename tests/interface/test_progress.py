"""What a run prints is kept in a file too."""

import io
import re
import sys

import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import AGAIN, Progress, Recorded, recorded


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_of_a_line_that_a_terminal_rewrites_the_last_state_is_kept(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", Recorded(terminal, tmp_path / "log.txt"))
    with Progress("embedding", 3, "clips") as progress:
        progress.interval = -1.0  # every time
        for _ in range(3):
            progress.add()
    assert terminal.getvalue().count(AGAIN) == 4
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(r"20\S+ \S+ embedding: 3/3 clips  \S+/s  0 s left", line)


def test_a_command_that_says_nothing_leaves_the_file_alone(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("of another run\n")
    with pytest.raises(InputError), recorded(path):
        raise InputError("refused")
    assert path.read_text() == "of another run\n"


def test_lines_of_both_streams_and_the_error_are_kept(tmp_path, capsys):
    path = tmp_path / "log.txt"
    with pytest.raises(InputError), recorded(path):
        print("one", end="")
        print("\n\ntwo")
        print("three", file=sys.stderr)
        raise InputError("four")
    said = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert said == ["one", "two", "three", "error: four"]
    assert capsys.readouterr().out == "one\n\ntwo\n"


class Closed(io.StringIO):
    """A terminal that somebody has closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        self.write("")


def test_a_closed_terminal_ends_nothing(tmp_path):
    stream = Recorded(Closed(), tmp_path / "log.txt")
    print("saved", file=stream, flush=True)
    assert (tmp_path / "log.txt").read_text().endswith(" saved\n")

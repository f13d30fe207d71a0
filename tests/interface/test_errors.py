"""What a script's end looks like, whatever ends it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from dinogrl_jax.interface.errors import InputError, run

def main():
    {body}

run(main)
"""


@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [
        ("return None", 0, ""),
        ("return 75", 75, ""),
        ("raise InputError('data.root: wrong')", 2, "error: data.root: wrong\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise OSError(28, 'no space', 'here')", 2, "error: here cannot be written: no space\n"),
    ],
)
def test_an_end_is_a_status_and_at_most_a_line(body, status, errors):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stderr.startswith(errors) and done.stderr.count("\n") == bool(errors)


def test_letters_that_a_terminal_cannot_show_end_nothing():
    """Kind H: PYTHONIOENCODING=ascii, or a file name of single bytes."""
    body = "print('2 × cpu', '\\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 \\xd7 cpu \\udcff\n"

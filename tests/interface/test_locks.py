"""Kinds I and L: one process at a time writes to a folder."""

import signal
import subprocess
import sys

import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.locks import NAME, lock

HOLDER = """
import sys
from pathlib import Path
from dinogrl_jax.interface.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_by_the_name_of_the_first(holder, tmp_path):
    with pytest.raises(InputError, match=f"in use by process {holder.pid} on .* since 2"):
        with lock(tmp_path / "run"):
            pass


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / NAME).exists()
    with lock(tmp_path / "run"):
        pass


def test_nothing_is_left_of_a_folder_that_was_refused(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path / "new" / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays(tmp_path):
    with lock(tmp_path / "new"):
        (tmp_path / "new" / "result").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="cannot be written"), lock(tmp_path / "run"):
        pass
    assert (tmp_path / "target").read_text() == "kept"

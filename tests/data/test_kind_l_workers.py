"""Workers end with their parent; a full disk and a killed worker are one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from manifests import lines, section, written

from dinogrl_jax.data import preparation
from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.locks import lock

WAITING = """
import time
from dinogrl_jax.data.parallel import map_in_processes
def announce(path):
    import os
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)
if __name__ == "__main__":
    import sys
    list(map_in_processes(announce, sys.argv[1:], 2))
"""


def killed(_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_workers_end_with_their_parent(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    told = [tmp_path / "1", tmp_path / "2"]
    command = [sys.executable, str(tmp_path / "waiting.py"), *map(str, told)]
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)})
    while not all(path.exists() and path.read_text() for path in told):
        assert parent.poll() is None
        time.sleep(0.05)
    workers = [int(path.read_text()) for path in told]
    assert all(map(is_alive, workers))
    parent.kill()
    parent.wait()
    for _ in range(1200):  # a minute, of a second or less
        if not any(map(is_alive, workers)):
            break
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_a_killed_worker_is_named():
    with pytest.raises(InputError, match="a worker process was killed.*lower --workers"):
        list(map_in_processes(killed, [1, 2, 3], 2))


def test_a_disk_without_room(tmp_path, monkeypatch):
    class Full:
        def __init__(self, path: str, _) -> None:
            Path(path).touch()

        def write(self, _) -> None:
            raise RuntimeError("write() failed: No space left on device; writing x")

    monkeypatch.setattr(preparation, "ArrayRecordWriter", Full)
    data = section(written(tmp_path, lines(1, 1)))
    with pytest.raises(InputError, match="cannot be written .write.. failed: No space.*continues"):
        preparation.prepare(data, str(tmp_path / "out"), workers=0)
    assert not list((tmp_path / "out").glob("*.draft"))
    monkeypatch.undo()
    preparation.prepare(data, str(tmp_path / "out"), workers=0)


def test_one_preparation_at_a_time(tmp_path):
    data = section(written(tmp_path, lines(1, 1)))
    with lock(tmp_path / "out"), pytest.raises(InputError, match="out is in use by process"):
        preparation.prepare(data, str(tmp_path / "out"), workers=0)
    preparation.prepare(data, str(tmp_path / "out"), workers=0)
    assert not (tmp_path / "out/.lock").exists()

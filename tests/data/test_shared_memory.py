"""Memory between processes: reserved, on disk where it is short, removed with who used it."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_batches import training

from dinogrl_jax.data import pipeline, shared_memory
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.interface.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders that stand for shared memory and for temporary files."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    monkeypatch.setattr(shared_memory, "MEMORY", str(memory))
    monkeypatch.setattr(shared_memory.tempfile, "gettempdir", lambda: str(disk))
    return memory, disk


def full(monkeypatch, *folders: Path) -> None:
    """The second file of each folder finds no space."""
    reserve = shared_memory._reserve

    def refuse(file: int, size: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        if path.parents[1] in folders and path.name.startswith("1"):
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(file, size)

    monkeypatch.setattr(shared_memory, "_reserve", refuse)


def test_space_is_reserved_at_the_start(places):
    folder = shared_memory.shared_folder(3, 2**16)
    assert folder.path.parent == places[0]
    files = list(folder.path.glob("*.free"))
    assert [file.stat().st_blocks * 512 >= 2**16 for file in files] == [True] * 3
    folder.cleanup()
    assert not any(places[0].iterdir())


def test_frames_travel_over_the_disk_where_memory_is_short(places, monkeypatch, caplog):
    full(monkeypatch, places[0])
    folder = shared_memory.shared_folder(2, 2**20)
    assert folder.path.parent == places[1] and not any(places[0].iterdir())
    assert f"{places[0]} has no room for 2.0 MiB: frames travel over {places[1]}" in caplog.text


def test_without_room_anywhere_there_is_one_line(places, monkeypatch):
    full(monkeypatch, *places)
    with pytest.raises(InputError, match="2 batches of 1.0 MiB .* lower data.workers, or set TMP"):
        shared_memory.shared_folder(2, 2**20)
    assert not any(path.is_dir() for place in places for path in place.iterdir())


LEFT = """
import os, sys
from dinogrl_jax.data import shared_memory
shared_memory.MEMORY = sys.argv[1]
folder = shared_memory.shared_folder(1, 64)
print(folder.path, flush=True)
sys.stdin.readline()
os._exit(1)
"""


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(places):
    mine = places[0] / "dinogrl_pictures"  # has no owner
    mine.mkdir()
    command = [sys.executable, "-c", LEFT, str(places[0])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, **pipes) as other:
        left = Path(other.stdout.readline().strip())
        first = shared_memory.shared_folder(1, 64)
        assert left.is_dir()  # its process lives
        other.communicate("\n")
    second = shared_memory.shared_folder(1, 64)
    assert not left.exists()
    assert mine.is_dir() and first.path.is_dir() and second.path.is_dir()


def test_a_killed_worker_is_named(split, config):
    config.data.workers = 1
    with pipeline.training_batches(split[0], labels(split[0]), config, steps=1000) as batches:
        next(batches)
        folder = batches.folder.path
        os.kill(multiprocessing.active_children()[-1].pid, 9)
        with pytest.raises(pipeline.BadBatch, match="was killed.*: lower data.workers"):
            for _ in range(1000):
                next(batches)
    assert not folder.exists()


def test_a_worker_that_finds_no_file_free_makes_one(tmp_path):
    (tmp_path / "0.free").write_bytes(bytes(48))
    paths = {shared_memory.writable_frames(str(tmp_path), name, (4, 3))[0] for name in ("a", "b")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"] and len(paths) == 2
    array = shared_memory.received_frames(str(tmp_path / "a"), (4, 3))
    np.testing.assert_array_equal(array, np.zeros((4, 3)))
    del array
    assert (tmp_path / "a.free").exists()


def test_all_batches_of_a_short_training_have_files(split, config):
    expected = training(split[0], config, steps=2)
    config.data.workers = 2
    found = training(split[0], config, steps=2)
    np.testing.assert_array_equal(found[1].frames, expected[1].frames)

"""Files appear when they are complete, or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.interface.files import atomic_write, new_folder, read_json, write_json


def test_json_there_and_back(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"mAP": 0.5})
    write_json(path, {"mAP": 0.75, "names": ["é"]})
    assert read_json(path) == {"mAP": 0.75, "names": ["é"]}
    assert os.listdir(tmp_path) == ["results.json"]  # no draft is left


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {2: object()})
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert read_json(path) == 1 and os.listdir(tmp_path) == ["results.json"]


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    (tmp_path / "text.json").write_text("{")
    for name in ("text.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)
    with pytest.raises(InputError, match="nowhere"):
        write_json(tmp_path / "nowhere" / "x.json", 1)


def test_an_unknown_name_lists_the_known_ones():
    table = {"vcm": 1, "bupt": 2}
    assert lookup(table, "bupt", "data.dataset") == 2
    with pytest.raises(InputError, match="data.dataset = 'sysu': there is vcm, bupt"):
        lookup(table, "sysu", "data.dataset")


def test_another_file_that_cannot_be_read_is_not_the_one_that_is_written(tmp_path):
    """Also where it stands beside the folder that is written."""
    with pytest.raises(InputError, match="gone.png: cannot be read .No such file"):
        with new_folder(tmp_path / "made"):
            (tmp_path / "in" / "gone.png").read_bytes()
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="made: cannot be written .No such file"):
        with new_folder(tmp_path / "out" / "made") as draft:
            (draft / "none" / "x").write_bytes(b"")
    with pytest.raises(InputError, match="other: cannot be written .No space"):
        with new_folder(tmp_path / "made"):
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "other"))


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_path_without_a_name_is_no_file(name):
    with pytest.raises(InputError, match="is no name of a file"):
        write_json(Path(name), 1)


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(InputError, match=f"{name} is no file that can be replaced"):
            write_json(tmp_path / name, 1)
    with pytest.raises(InputError, match="fifo exists: choose another"):
        with new_folder(tmp_path / "fifo"):
            raise AssertionError("the work has begun")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and (tmp_path / "folder").is_dir()

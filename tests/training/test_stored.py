"""Files that decide a run are compared by what is in them, wherever they lie."""

import json
import os
import shutil

import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training.stored import content_digest

NAME = "model.safetensors"


@pytest.fixture
def index(tmp_path):
    """A folder of two shards."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"part{number}.safetensors").write_bytes(bytes([number]) * 9)
    content = {"weight_map": {"a": "part1.safetensors", "b": "part2.safetensors"}}
    (folder / f"{NAME}.index.json").write_text(json.dumps(content))
    return folder / f"{NAME}.index.json"


def test_a_folder_of_weights_and_its_index_are_what_their_files_are(index, tmp_path):
    digest = content_digest(str(index))
    assert content_digest(str(index.parent)) == digest
    shutil.copytree(index.parent, tmp_path / "moved")
    assert content_digest(str(tmp_path / "moved")) == digest
    (tmp_path / "moved" / "part2.safetensors").write_bytes(b"other")
    assert content_digest(str(tmp_path / "moved")) != digest


def test_a_file_is_what_it_holds(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same")
    assert content_digest(str(tmp_path / "one")) == content_digest(str(tmp_path / "two"))
    with pytest.raises(InputError, match="nowhere: cannot be read"):
        content_digest(str(tmp_path / "nowhere"))
    with pytest.raises(InputError):
        content_digest(str(tmp_path))  # a folder without weights or checkpoints


def test_an_index_that_is_gone_or_a_fifo_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{NAME}.index.json"):
        content_digest(str(tmp_path / f"{NAME}.index.json"))
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(InputError, match="weights.pth is a FIFO, not a file"):
        content_digest(str(tmp_path / "weights.pth"))

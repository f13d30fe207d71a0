"""The folder of a run."""

import pytest
import small

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training import workdir


def test_a_run_that_was_killed_while_it_wrote_its_first_file_begins_again(tmp_path):
    (tmp_path / ".config.json.1234").write_text('{"data"')
    config = small.get_config()
    folder, _ = workdir.opened(str(tmp_path), config)
    assert (folder / "config.json").exists()
    workdir.opened(str(tmp_path), config)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and holds no run"):
        workdir.opened(str(tmp_path), small.get_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

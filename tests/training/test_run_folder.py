"""The folder of a run."""

import json

import pytest
import small

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.run_folder import check_same, run_folder, saved_config


def test_a_run_that_was_killed_while_it_wrote_its_first_file_begins_again(tmp_path):
    (tmp_path / ".config.json.1234").write_text('{"data"')
    config = small.get_config()
    folder, _ = run_folder(str(tmp_path), config)
    assert saved_config(folder) == config
    run_folder(str(tmp_path), config)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and holds no run"):
        run_folder(str(tmp_path), small.get_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_another_layout_is_refused_with_the_version_that_wrote_it(tmp_path):
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(small.get_config().to_dict()))  # as long ago
    refused = f"^{tmp_path} was written by {{}} in another layout, which is not read: .*$"
    with pytest.raises(InputError, match=refused.format("an earlier version")):
        run_folder(str(tmp_path), small.get_config())
    metadata = tmp_path / "checkpoints/7/metadata/metadata"
    metadata.parent.mkdir(parents=True)
    content = {"versions": {"dinogrl_jax": "0.0.1", "git": "abc"}}
    metadata.write_text(json.dumps({"content": content}))
    with pytest.raises(InputError, match=refused.format("dinogrl_jax 0.0.1, commit abc")):
        run_folder(str(tmp_path), small.get_config())
    content = {"layout": checkpoint.LAYOUT + 1, "versions": {"dinogrl_jax": "9.0"}, "new": {}}
    settings.write_text(json.dumps(content))
    with pytest.raises(InputError, match=refused.format("dinogrl_jax 9.0")):
        run_folder(str(tmp_path), small.get_config())
    assert json.loads(settings.read_text()) == content


def test_of_a_run_of_another_method_no_settings_are_listed():
    config = small.get_config()
    trained = config.copy_and_resolve_references()
    trained.update(method="another", seed=config.seed + 1)
    named = f"^run holds a run of method = another, not of {config.method}: choose another --"
    with pytest.raises(InputError, match=named) as refused:
        check_same(config, trained, "run", ())
    assert "seed" not in str(refused.value)
    trained.method = config.method
    with pytest.raises(InputError, match="seed: "):
        check_same(config, trained, "run", ())

"""Files of configurations: Python that may import other files, a run's config.json, names."""

import json
from pathlib import Path

import pytest
import small
from commands import ROOT

from dinogrl_jax.interface import checks
from dinogrl_jax.interface.command_line import config_of
from dinogrl_jax.interface.config_files import config_path, read_config, run_of
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.run_folder import run_folder, saved_config

SMALL = "from tests.small import get_config as small\n\n\n"


def test_configurations_import_each_other(tmp_path):
    (tmp_path / "experiments").mkdir()
    base = SMALL + "def get_config():\n    return small()\n"
    (tmp_path / "experiments/base_of_test.py").write_text(base)
    for number, place in enumerate(("experiments.base_of_test", "base_of_test")):
        path = tmp_path / f"experiments/mine{number}.py"
        path.write_text(
            f"from {place} import get_config as base\n\n\ndef get_config():\n"
            "    config = base()\n    config.seed = 5\n    return config\n"
        )
        assert read_config(str(path)).seed == 5


def test_a_run_is_a_configuration(tmp_path):
    config = small.get_config()
    config.seed = 7
    run_folder(tmp_path / "run", config)
    for name in (tmp_path / "run/config.json", tmp_path / "run"):
        assert read_config(str(name)) == config
        assert run_of(str(name)) == str(tmp_path / "run")
    assert run_of(small.PATH) == "runs/small"


@pytest.mark.parametrize("name", ["vcm", "vcm.py", "configs/vcm.py"])
def test_a_name_is_enough_where_there_is_no_clone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path(name) == (ROOT / "configs/vcm.py", []) and run_of(name) == "runs/vcm"
    (tmp_path / "vcm").mkdir()  # a data set, say
    assert config_path(name) == (ROOT / "configs/vcm.py", [])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/vcm.py").touch()
    assert config_path(name) == (Path("configs/vcm.py"), [])


def test_a_wrong_name_is_told_which_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.py").touch()
    with pytest.raises(InputError, match="--config vmc: there is no such file; by name .*, mine"):
        config_path("vmc")


def test_a_file_with_changes():
    made = config_of(small.PATH, ["--config.seed=3", "--config.data.root=~/x"])
    assert made.seed == 3 and made.data.root.endswith("/x") and made.data.root[0] != "~"
    for words in (["--config.sed=3"], ["--config.seed=-3"]):
        with pytest.raises(InputError, match="seed"):
            config_of(small.PATH, words)


def test_an_argument_behind_a_colon(tmp_path):
    (tmp_path / "c.py").write_text(
        SMALL + "def get_config(seed):\n    c = small()\n    c.seed = int(seed)\n    return c\n"
    )
    assert read_config(f"{tmp_path}/c.py:12").seed == 12


def test_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.py").write_text(SMALL + "get_config = small\n")
    assert read_config("~/c.py") == small.get_config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("x = 1\n", r"has no get_config\(\)"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError"),
        ("def get_config():\n    return {}\n", "returns no ConfigDict"),
        (
            "def get_config():\n    raise ValueError('two\\nlines')\n",
            "line 2: ValueError: two lines",
        ),
        ("get_config = 3\n", "TypeError"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
        ("\0", "c.py: "),
    ],
)
def test_a_file_of_something_else(text, said, tmp_path):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_config(str(tmp_path / "c.py"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[], 3, {}, {"config": 3}, {"layout": 2}])
def test_json_of_something_else(content, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is no run's config.json"):
        read_config(str(tmp_path / "config.json"))


@pytest.mark.parametrize("config", ["a.b", "data", "data/synthetic"])
def test_a_runs_settings_that_were_damaged_are_one_line(config, tmp_path):
    path = tmp_path / "config.json"
    settings = small.get_config().to_dict()
    section, _, name = config.rpartition("/")
    (settings[section] if section else settings)[name] = 3
    path.write_text(json.dumps({"layout": checkpoint.LAYOUT, "config": settings}))
    with pytest.raises(InputError):
        checks.checked_config(read_config(str(path)))
    with pytest.raises(InputError):
        saved_config(tmp_path)

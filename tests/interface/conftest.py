"""Commands in this process: a hundred refusals take as long as one process."""

import importlib.util
import sys
from pathlib import Path

import pytest
from absl import flags

from dinogrl_jax.interface.errors import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def train():
    """The main function of scripts/train.py."""
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts/train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def done(monkeypatch, capsys, tmp_path):
    """(main, words) → status, output and errors of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_it(main, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
        flags.FLAGS.unparse_flags()
        with pytest.raises(SystemExit) as end:
            run(main)
        output, errors = capsys.readouterr()
        return end.value.code, output, errors

    yield run_it
    flags.FLAGS.unparse_flags()


@pytest.fixture
def refused(done, tmp_path):
    """(main, words) → the one line of a command that is refused, and leaves nothing behind."""

    def line(main, *words):
        before = sorted(tmp_path.rglob("*"))
        status, output, errors = done(main, *words)
        assert (status, output) == (2, ""), errors
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        assert sorted(tmp_path.rglob("*")) == before
        return errors

    return line

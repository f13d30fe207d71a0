"""Scripts in this process: a hundred refusals take as long as one start of Python."""

import importlib.util
import sys
from collections.abc import Callable

import pytest
from absl import flags
from commands import ROOT

from dinogrl_jax.interface.errors import run


def main_of(name: str) -> Callable:
    """The main function of a script; flags that it defines can be defined once in a process."""
    known = f"script_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, ROOT / "scripts" / f"{name}.py")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known].main


@pytest.fixture
def done(monkeypatch, capsys, tmp_path):
    """(script, words) → status, output and errors of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_it(name, *words):
        main = main_of(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        flags.FLAGS.unparse_flags()
        with pytest.raises(SystemExit) as end:
            run(main)
        output, errors = capsys.readouterr()
        return end.value.code or 0, output, errors

    yield run_it
    flags.FLAGS.unparse_flags()


@pytest.fixture
def refused(done, tmp_path):
    """(script, words) → the one line of a command that is refused, and leaves nothing behind."""

    def line(name, *words):
        before = sorted(tmp_path.rglob("*"))
        status, output, errors = done(name, *words)
        assert (status, output) == (2, ""), errors
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        assert sorted(tmp_path.rglob("*")) == before
        return errors

    return line

"""--help, and what a command says that was given nothing or something wrong."""

import subprocess
import sys

import pytest
import small
from commands import ROOT

from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.checks import DECLARED
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.settings import leaves

CONFIG = ("--config", small.PATH)


@pytest.mark.parametrize("word", ["--help", "-h", "-help"])
def test_help_has_flags_and_every_setting_with_its_meaning(word, done):
    status, output, errors = done("train", word)
    assert (status, errors) == (0, "")
    text = " ".join(output.split())
    assert "--workdir" in text and "--help-section" in text
    for name, setting in leaves(next(iter(DECLARED.values()))):
        assert f"{name.rpartition('.')[2]} = " in text, name
        assert " ".join(setting.meaning.split()) in text, name


def test_help_has_the_values_of_the_configuration(done):
    _, output, _ = done("train", *CONFIG, "--config.data.frames=7", "--help")
    assert "frames = 7 " in output and f"values in {small.PATH}" in output


def test_a_section_alone(done, refused):
    for words in (("--help-section", "optimizer"), ("--help_section=optimizer",)):
        status, output, _ = done("train", *words)
        assert status == 0 and output.startswith("optimizer\n")
        assert "learning_rate = " in output and "data" not in output.splitlines()
    _, output, _ = done("train", "--help-section", "data")
    assert {"data", "data.synthetic"} <= set(output.splitlines())
    assert done("train", "--help-section", "synthetic")[1].startswith("data.synthetic\n")
    assert "there is data, data.synthetic, model" in refused("train", "--help-section", "nothing")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say which configuration"),
        (("--nonsense",), "nonsense"),
        (("--wordkir", "x"), "Did you mean: workdir"),
        (("--data.rot=x",), "settings are --config.data.root=value"),
        (("word",), "'word' is no flag"),
        (("--config",), "--config"),
        (("--config.seed=1",), "say which, --config FILE"),
        (("--config", "nowhere.py"), "--config nowhere.py: there is no such file"),
        ((*CONFIG, "data.seed=1"), "'data.seed=1' is no flag"),
        ((*CONFIG, "--workdir", "s3://bucket/run"), "it has to be a path of this machine"),
    ],
)
def test_wrong_words_are_one_line(words, said, refused):
    line = refused("train", *words)
    assert said in line


def test_a_value_may_be_the_next_word(refused):
    assert "data.height = -3" in refused("train", *CONFIG, "--config.data.height", "-3")
    assert "data.auxiliary" not in refused(
        "train", *CONFIG, "--noconfig.data.auxiliary", "--config.data.height", "0"
    )


def test_a_parser_refuses_in_one_line():
    parser = Parser("What it does.")
    parser.add_argument("--out", required=True, type=path)
    parser.add_argument("--batch", type=whole_number(1))
    for words, said in {
        (): "--out",
        ("--out", "x", "--batch", "0"): "no whole number from 1 on",
        ("--out", "x", "--batch", "9" * 30): "no whole number from 1 on",
        ("--out", "x", "more"): "unrecognized arguments: more",
        ("--out", "gs://bucket"): "path of this machine",
    }.items():
        with pytest.raises(InputError, match=said):
            parser.parse_args(words)


def test_paths_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = Parser()
    parser.add_argument("--out", type=path)
    assert parser.parse_args(["--out=~/x"]).out == f"{tmp_path}/x"


@pytest.mark.parametrize("script", ["evaluate.py", "extract.py", "ablate.py", "compare.py"])
def test_scripts_answer(script):
    """In processes of their own, as one stops reading."""
    command = f"{sys.executable} {ROOT}/scripts/{script} --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout and not done.stderr
    done = subprocess.run(
        [sys.executable, f"{ROOT}/scripts/{script}"], capture_output=True, text=True
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: command line: ") and done.stderr.count("\n") == 1

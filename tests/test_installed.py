"""The wheel: it has what its commands need, and they answer in a folder without a clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT

import dinogrl_jax

SOURCES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
FOLDERS = ("configs", "dinogrl_jax", "scripts", "tests")
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
SETUPTOOLS = "import sys, setuptools.build_meta as b; [getattr(b, k)('..') for k in sys.argv[1:]]"


def built(source: Path, *kinds: str) -> None:
    """Build distributions of a source tree, beside it."""
    command = [sys.executable, "-c", SETUPTOOLS, *(f"build_{kind}" for kind in kinds)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist of a copy, which has nothing of earlier builds."""
    folder = tmp_path_factory.mktemp("dist")
    for name in FOLDERS:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=left_out)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / "source")
    built(folder / "source", "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """What an installation unpacks."""
    folder = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(wheel, folder, "zip")
    return folder


@pytest.fixture
def done(site, tmp_path, monkeypatch):
    """words → what the installed command says in an empty folder, which stays empty."""
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*words: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "dinogrl_jax", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert bool(done.stderr) == bool(status) and not list(tmp_path.iterdir())
        return done.stderr if status else done.stdout

    return run


def test_the_wheel_has_what_its_commands_need(wheel):
    names = content(wheel).keys()
    for folder in ("scripts", "configs"):
        files = {f"dinogrl_jax/{folder}/{path.name}" for path in (ROOT / folder).glob("*.p*")}
        assert files == {name for name in names if name.startswith(f"dinogrl_jax/{folder}/")}
    pages = ROOT.glob("dinogrl_jax/retrieval/server/static/*")
    assert {path.relative_to(ROOT).as_posix() for path in pages} <= names
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("dinogrl_jax/**/*.py")}
    assert modules | {"dinogrl_jax/py.typed", "dinogrl_jax/configs/walker_vit.pth"} <= names
    about = f"dinogrl_jax-{dinogrl_jax.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"dinogrl_jax", about}
    assert f"{about}/licenses/LICENSE" in names


def test_the_wheel_says_its_version_licence_and_command(wheel):
    files = {Path(name).name: text for name, text in content(wheel).items()}
    for line in (f"Version: {dinogrl_jax.__version__}", "License-Expression: Apache-2.0"):
        assert line in files["METADATA"].decode().splitlines()
    assert b"dinogrl_jax = dinogrl_jax.__main__:main" in files["entry_points.txt"].splitlines()


def test_the_sdist_builds_the_same_wheel(dist, wheel, tmp_path):
    (sdist,) = dist.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    (source,) = tmp_path.iterdir()
    assert not (source / "tests").exists()
    built(source, "wheel")
    assert content(tmp_path / wheel.name) == content(wheel)


def test_the_commands_are_the_scripts(done):
    text = done("--help")
    assert text == done()
    listed = text.partition("Commands\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == SCRIPTS
    assert "  train      Train a method and evaluate it" in listed
    assert all(len(line.split()) > 2 for line in listed)


def test_the_command_has_the_version(done):
    assert done("--version") == f"dinogrl_jax {dinogrl_jax.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "trian: there is no such command; did you mean train?"),
        (["eval"], "did you mean evaluate?"),
        (["--config", "synthetic"], f"there is {', '.join(SCRIPTS)}"),
        (["generate"], "command line: the following arguments are required: --out"),
    ],
)
def test_a_wrong_command_is_one_line(words, said, done):
    line = done(*words, status=2)
    assert line.startswith("error: ") and said in line and line.count("\n") == 1


def test_a_usage_names_the_command(done):
    assert done("generate", "--help").startswith("usage: dinogrl_jax generate [-h] --out OUT")


def test_shipped_configurations_are_imported_and_find_their_weights(done, site, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine") / "mine.py"
    mine.write_text("from configs.synthetic import get_config  # noqa: F401\n")
    text = done("train", "--config", str(mine), "--help-section", "pretrained")
    where = f"'{site}/dinogrl_jax/configs/walker_vit.pth'"
    assert f"dinov2 = {where[:80]}" in text  # a longer value is cut off there

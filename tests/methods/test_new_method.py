"""docs/new_method.md: its methods in a copy of the repository that has no others.

There the folder of each method, its line in METHODS, its configurations and its tests are deleted;
the first method of the page takes their place, and the tests of everything else pass.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, SMALL_DEMO
from kill import saved

from dinogrl_jax.methods import METHODS

pytestmark = pytest.mark.slow
DOCUMENT = (ROOT / "docs" / "new_method.md").read_text()
FILES = dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", DOCUMENT, re.DOTALL))
OWN = [f"{folder}/methods/{name}" for folder in ("dinogrl_jax", "tests") for name in METHODS]
DELETED = {*OWN, ".git", ".venv", "runs", "data"}
# What uses a method: all other files stand in the copy as they stand here. Of the scripts' tests
# those are left out whose subject is the disk or the command line.
OF_METHODS = (
    "tests/methods",
    "tests/retrieval/test_embeddings.py",
    "tests/scripts/test_extract.py",
    "tests/scripts/test_scripts.py",
    "tests/test_layout.py",
    "tests/training/test_step.py",
    *(  # the same, at length
        pytest.param(folder, marks=pytest.mark.full)
        for folder in ("tests/benchmarks", "tests/devices", "tests/scripts", "tests/training")
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("without") / "dinogrl"

    def left_out(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(ROOT)
        return [n for n in names if str(inside / n) in DELETED or n == "__pycache__"]

    shutil.copytree(ROOT, root, ignore=left_out)
    for path in (root / "configs").glob("*.py"):
        if any(f'default("{name}")' in path.read_text() for name in METHODS):
            path.unlink()
    names = [Path(name).parent.name for name in FILES if name.endswith("__init__.py")]
    table = root / "dinogrl_jax" / "methods" / "__init__.py"
    changes = {
        f"import {', '.join(sorted(METHODS))}\n": f"import {', '.join(sorted(names))}\n",
        lines_of(METHODS): lines_of(names),
    }
    text = table.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    table.write_text(text)
    for name, code in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(code)
    small = root / "tests" / "methods" / "centres" / "sizes.py"
    small.parent.mkdir()
    small.write_text("def shrink(config):\n    config.model.width = 8\n")
    return root


def lines_of(names: Iterable[str]) -> str:
    """Those of METHODS."""
    return "".join(f'    "{name}": {name},\n' for name in names)


def run(copy: Path, *command, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )


def test_the_page_has_both_methods():
    assert [name for name in FILES if name.startswith("dinogrl_jax/methods/")] == [
        "dinogrl_jax/methods/mean/__init__.py",
        "dinogrl_jax/methods/centres/__init__.py",
    ]
    assert '"mean": mean,' in DOCUMENT


def test_the_copy_is_clean(copy):
    """Its code keeps to the rules, and nothing in it looks for what was deleted."""
    done = run(copy, "-m", "ruff", "check", "dinogrl_jax", "tests")
    assert done.returncode == 0, done.stdout
    done = run(copy, "-m", "pytest", "-q", "--collect-only", "tests")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("tests", OF_METHODS)
def test_everything_else_passes_without_the_others(copy, tests):
    chosen = [
        "-m",
        "not slow and not full",
        "-k",
        "not killed and not disk and not settings and not frame",
    ]
    done = run(copy, "-m", "pytest", "-q", "-x", *chosen, tests)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture(scope="module")
def centres(copy, tmp_path_factory):
    """The command that trains the method with a memory, in a folder; and a whole run."""
    folder = tmp_path_factory.mktemp("centres")
    (copy / "configs" / "centres.py").write_text(
        "from tests.small import get_config as small\n\n\n"
        'def get_config():\n    return small("centres")\n'
    )
    settings = SMALL_DEMO | {"data.root": folder / "people", "train.steps_per_epoch": 3}

    def command(workdir: str, **changed) -> list:
        options = [f"--config.{k}={v}" for k, v in (settings | changed).items()]
        return ["scripts/train.py", "--config=configs/centres.py", f"--workdir={workdir}", *options]

    done = run(copy, *command(folder / "whole"))
    assert done.returncode == 0, done.stderr
    return command, folder


@pytest.mark.parametrize("last_line", ["step 3/", "step 4/"])
def test_a_memory_continues_to_the_bit(copy, centres, last_line, tmp_path):
    """Stopped at the end of an epoch, before the next pass, and in mid-epoch."""
    command, folder = centres
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, command(tmp_path / "run"))],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith(last_line):
            process.send_signal(signal.SIGTERM)
            break
    output = process.stdout.read()
    assert process.wait() == 75, output
    assert int(output.rpartition("stopped and saved at step ")[2].partition(";")[0]) < 9, output
    done = run(copy, *command(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    whole, resumed = saved(folder / "whole"), saved(tmp_path / "run")
    assert all(map(np.array_equal, whole, resumed))
    centre = next(x for x in whole if x.shape == (6, 8))  # identities, channels
    np.testing.assert_allclose(np.linalg.norm(centre, axis=1), 1, rtol=1e-5)  # float32


def test_a_method_that_needs_cameras_refuses_tracklets_without(copy, centres, tmp_path):
    command, folder = centres
    frame = next((folder / "people").rglob("*.[jp][pn]g"))
    lines = [
        json.dumps({"frames": [str(frame)], "identity": i, "modality": m, "split": split})
        for i in range(2)
        for m in ("visible", "infrared")
        for split in ("train", "test")
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    changed = {"data.dataset": "manifest", "data.root": tmp_path / "list.jsonl"}
    done = run(copy, *command(tmp_path / "run", **changed, **{"data.minimum_frames": 1}))
    assert done.returncode == 2 and "camera" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()

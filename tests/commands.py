"""Scripts of the repository, run as a user runs them."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SMALL_DEMO = {
    "data.dataset": "synthetic",
    "data.synthetic.height": 64,
    "data.synthetic.width": 32,
    "data.synthetic.train_identities": 6,
    "data.synthetic.test_identities": 3,
    "data.synthetic.tracklets_per_identity": 3,
    "data.identities_per_batch": 2,
    "data.tracklets_per_identity": 2,
    "train.epochs": 3,
    "train.steps_per_epoch": 2,
    "train.evaluate_every": 2,
    "train.log_every": 1,
}


# XLA's flags in tests: small models compile for longer than they run, so that their code is not
# optimised. What runs at full size is compiled as for a user.
QUICK = "--xla_backend_optimization_level=0"
NO_EMITTERS = "--xla_cpu_use_fusion_emitters=false"  # a third less to compile, where it is a flag
OPTIMISED = {"XLA_FLAGS": ""}


class Done(NamedTuple):
    status: int
    output: str
    errors: str
    seconds: float
    gib: float  # the most memory that it had


def script(name: str, *arguments, **environment) -> Done:
    """A script in a process of its own. A traceback is a failure, whatever the status."""
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, cwd=ROOT, env={**os.environ, **environment}
        )
        gib = 0.0
        while process.poll() is None:
            gib = max(gib, peak_gib(process.pid))
            time.sleep(0.02)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    assert "Traceback" not in texts[1], texts[1]
    seconds = time.monotonic() - began
    return Done(process.returncode, *texts, seconds, gib)


def started(name: str, *arguments) -> subprocess.Popen:
    """A script that runs beside the test."""
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def demo(script: str, root: Path, workdir: Path, **changed) -> list[str]:
    """The command of train.py or evaluate.py with the demo's configuration in small."""
    settings = SMALL_DEMO | {"data.root": str(root)} | changed
    options = [f"--config.{key}={value}" for key, value in settings.items()]
    config = ["--config", str(ROOT / "tests/small.py"), "--workdir", str(workdir)]
    return [sys.executable, str(ROOT / "scripts" / script), *config, *options]


def peak_gib(process: int | str) -> float:
    """The most memory that a process has had; `ru_maxrss` counts its parent's before the start."""
    status = Path(f"/proc/{process}/status").read_text()
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]  # none at its end
    return int(lines[0].split()[1]) / 2**20 if lines else 0.0


def refusal(name: str, *arguments) -> str:
    """The one line with which a script refuses its input."""
    done = script(name, *arguments)
    assert done.status == 2, done.errors
    errors = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.errors
    return errors[0]

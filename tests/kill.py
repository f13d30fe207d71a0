"""A run that is killed again and again, and ends as if it had not been:

    python tests/kill.py --times 20 --out /tmp/kills

makes a tiny run of the demo in DIR/whole, then the same in DIR/killed, which gets `kill -9` at
random moments, every second time while a checkpoint is being written. Each time the same command
goes on. It prints a line for each kill, and in the end whether all parameters are equal to the bit.
Exit status 1 if they are not, or if the run ended before it had been killed so often.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from commands import demo

from dinogrl_jax.training import checkpoint

DRAFTS = "*.orbax-checkpoint-tmp*"  # what Orbax writes before it renames


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20, help="kills, default 20")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    longer = {"train.epochs": 120, "train.checkpoint_every": 1, "train.evaluate_every": 5}
    whole, killed = (
        demo("train.py", options.out / "people", options.out / name, **longer)
        for name in ("whole", "killed")
    )
    subprocess.run(whole, check=True, capture_output=True)
    # What is compiled is kept now: this run starts as fast as those that are killed.
    start, steps = seconds([*whole, "--workdir", str(options.out / "again")])
    print(f"a run starts for {start:.0f} s and steps for {steps:.0f} s", flush=True)
    rng, longest = random.Random(options.seed), start + 2 * steps / options.times
    moments = [(rng.uniform(0, longest), bool(number % 2)) for number in range(options.times)]
    count = 0
    for line in kills(killed, options.out / "killed", moments):
        count += "killed" in line
        print(line, flush=True)
    subprocess.run(killed, check=True, capture_output=True)
    equal = all(map(np.array_equal, *(saved(options.out / name) for name in ("whole", "killed"))))
    print(f"{count} kills; all parameters {'equal to the bit' if equal else 'DIFFERENT'}")
    return 0 if equal and count == options.times else 1


def seconds(command: list[str]) -> tuple[float, float]:
    """How long a run takes until its first step is done, and from there."""
    began = first = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        for line in process.stdout:
            if line.startswith("step 1/"):
                first = time.monotonic()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return first - began, time.monotonic() - first


def kills(
    command: list[str], workdir: Path, moments: Iterable[tuple[float, bool]]
) -> Iterable[str]:
    """Start a run for each moment and kill it then: a line for each.

    A moment is a number of seconds, and whether to wait from there for a checkpoint in the making.
    """
    for number, (seconds, in_writing) in enumerate(moments, 1):
        began = time.time()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        while process.poll() is None and in_writing and not drafts(workdir, began):
            time.sleep(0.0005)
        writing = drafts(workdir, began)
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        if process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(f"kill {number}: exit status {process.returncode}\n{output}")
        names = [p.name for p in (workdir / "checkpoints").glob("[0-9]*")]
        steps = sorted(filter(str.isdigit, names), key=int)
        what = "ended before" if process.returncode == 0 else "killed"
        during = f", writing {', '.join(p.name for p in writing)}" if writing else ""
        yield f"{number}: {what} {seconds:.1f} s{during}; left {', '.join(steps) or 'nothing'}"


def drafts(workdir: Path, since: float) -> list[Path]:
    """The checkpoints that are being written; a killed run may have left older ones."""
    return [p for p in (workdir / "checkpoints").glob(DRAFTS) if changed(p) > since]


def changed(path: Path) -> float:
    """When a folder changed last, in seconds since 1970; 0 if it was renamed just now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def saved(workdir: Path) -> list[np.ndarray]:
    """Everything that the last checkpoint of a run holds."""
    manager = checkpoint.open_folder(workdir / "checkpoints")
    folder = workdir / "checkpoints" / str(manager.latest_step())
    items = [
        ocp.StandardCheckpointer().restore(folder / name) for name in ("variables", "training")
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(items)]


if __name__ == "__main__":
    sys.exit(main())

"""A small X-ReID that is killed (SIGKILL) where the environment variable KILLED says:

    KILLED="pass 1 5" python scripts/train.py --config tests/methods/xreid/killed_xreid.py …

behind the fifth batch of the pass before epoch 1, counted from 0; "step 5" is behind that step.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import small  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from dinogrl_jax.training import checkpoint, loop  # noqa: E402


def get_config() -> ConfigDict:
    loop.Sweeper, loop.Run = Sweeper, Run
    return small.get_config("xreid")


class Sweeper(loop.Sweeper):
    def __call__(self, state, epoch, between):
        batches = 0

        def killed():
            nonlocal batches
            batches += 1
            kill_at(f"pass {epoch} {batches}", between.__self__)
            between()

        return super().__call__(state, epoch, killed)


class Run(loop.Run):
    def after_step(self, number, state, terms):
        kill_at(f"step {number}", self)
        super().after_step(number, state, terms)


def kill_at(place: str, run: Run) -> None:
    """Not before the last checkpoint is written, so that it is known where the run goes on."""
    if place == os.environ.get("KILLED"):
        checkpoint.finish(run.manager)
        os.kill(os.getpid(), signal.SIGKILL)

"""X-ReID's pass before an epoch, which makes all prototypes anew."""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Sweep
from dinogrl_jax.methods.xreid.model import Model


def before_epoch(model: Model, config: ConfigDict, epoch: int) -> Sweep | None:
    """The pass before an epoch, counted from 0; None where prototypes are not made anew.

    Tracklets come in a random order, each with a random frame of every chunk.
    """
    c = config.model.prototypes
    if not c.on or (c.start == "once" and epoch):
        return None
    step = model.add_by_batch if by_batch(c.statistics, epoch) else model.add_by_running
    return Sweep(c.tracklets, model.begin_prototypes, step, model.end_prototypes, random=True)


def by_batch(statistics: str, epoch: int) -> bool:
    """Whether norms take the statistics of the batch, in the pass before an epoch from 0.

    "published": in the first epoch and in every second one from then on (epochs 1, 2, 4, 6 from 1),
    since the published network stays in evaluation mode between an evaluation, which comes behind
    every second epoch, and the next step. It is so here whatever `train.evaluate_every` is.
    """
    if statistics == "published":
        return epoch == 0 or epoch % 2 == 1
    return statistics == "batch"

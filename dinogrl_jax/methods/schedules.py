"""Learning rates as functions of the step, which `contract.Group.rate` takes."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict


def by_steps(config: ConfigDict, steps_per_epoch: int) -> Callable:
    """The learning rate of a step, counted from 0, by the number of its epoch.

    Linear from warmup_factor to 1 over warmup_epochs, × decay_factor from each of decay_epochs on.

    config: learning_rate, warmup_epochs, warmup_factor, decay_epochs and decay_factor.
    """

    def rate(step: Int[Array, ""] | int) -> Float[Array, ""]:
        epoch = step // steps_per_epoch
        share = jnp.minimum(epoch / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
        factor = config.warmup_factor * (1 - share) + share
        decays = sum(jnp.where(epoch >= start, 1, 0) for start in config.decay_epochs)
        return jnp.asarray(config.learning_rate * factor * config.decay_factor**decays)

    return rate

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


def by_cosine(config: ConfigDict, learning_rate: float, steps_per_epoch: int) -> Callable:
    """The learning rate of a step, counted from 0, by the number of its epoch.

    Linear from the floor to the rate over warmup_epochs, and from then on where half a cosine is
    that began with the first epoch: below the rate. The floor from cosine_epochs on, whatever the
    length of the training. It is the same for all rates: floor_factor of config.learning_rate.

    config: learning_rate, warmup_epochs, cosine_epochs and floor_factor.

    Source: timm's CosineLRScheduler without a prefix, which sets rates at the start of an epoch.
    """

    floor = config.floor_factor * config.learning_rate

    def rate(step: Int[Array, ""] | int) -> Float[Array, ""]:
        epoch = step // steps_per_epoch
        rise = epoch / max(config.warmup_epochs, 1)
        fall = (1 + jnp.cos(jnp.pi * epoch / config.cosine_epochs)) / 2
        fall = jnp.where(epoch < config.cosine_epochs, fall, 0.0)
        share = jnp.where(epoch < config.warmup_epochs, rise, fall)
        return floor + (learning_rate - floor) * share

    return rate

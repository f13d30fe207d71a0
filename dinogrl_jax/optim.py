"""The optimiser and its schedule."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict, epoch: Int[Array, ""] | int) -> Float[Array, ""]:
    """The learning rate of an epoch, counted from 0.

    Linear from warmup_factor to 1 over warmup_epochs, × decay_factor from each of decay_epochs on.

    config: the section `optimizer` of `dinogrl_jax.config`.
    """
    part = jnp.minimum(epoch / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
    factor = config.warmup_factor * (1 - part) + part
    decays = sum(jnp.where(epoch >= start, 1, 0) for start in config.decay_epochs)
    return config.learning_rate * factor * config.decay_factor**decays


def optimizer(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam whose weight decay is added to the gradient (coupled, as torch.optim.Adam's).

    Clipping comes before the decay, as torch.nn.utils.clip_grad_norm_ would.
    """

    def schedule(step: Array) -> Array:
        return learning_rate(config, step // steps_per_epoch)

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.add_decayed_weights(config.weight_decay),
        optax.adam(schedule, b1=0.9, b2=0.999, eps=1e-8),
    )

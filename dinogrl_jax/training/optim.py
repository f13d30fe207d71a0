"""The optimiser and its schedule."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.ops.layers import apart

B1, B2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's


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
        # Numbers of the whole step are apart: XLA would compute them in the loop of each array.
        return apart(learning_rate(config, step // steps_per_epoch))

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.add_decayed_weights(config.weight_decay),
        # nested as optax.adam is, so that checkpoints of either continue
        optax.chain(_scale_by_adam(), optax.scale_by_learning_rate(schedule)),
    )


def _scale_by_adam() -> optax.GradientTransformation:
    """optax's, but a CPU has all gradients before it begins, and then moments before updates.

    XLA would update moments while it still needs what the forward pass kept, and would compute them
    again for the update, from the moments before, of which it therefore keeps a copy all the time.
    """

    adam = optax.scale_by_adam(B1, B2, EPSILON)

    def update(gradient: optax.Updates, state: optax.ScaleByAdamState, params=None) -> tuple:
        _, new = adam.update(apart(gradient), state, params)
        new = jax.tree.map(apart, new)
        first, second = apart((1 - B1**new.count, 1 - B2**new.count))  # for moments begun at 0

        def direction(mean: Array, square: Array) -> Array:
            return mean / first / (jnp.sqrt(square / second) + EPSILON)

        return jax.tree.map(direction, new.mu, new.nu), new

    return optax.GradientTransformation(adam.init, update)

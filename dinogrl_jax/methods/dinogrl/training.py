"""Which of DinoGRL's parameters are trained, and how."""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Group
from dinogrl_jax.methods.schedules import by_steps


def groups(config: ConfigDict) -> list[Group]:
    """All but the backbone, at one rate; the decay is added to the gradient."""
    rate = by_steps(config.optimizer, config.train.steps_per_epoch)
    return [Group("dinov2/.*", None), Group(".*", rate, config.optimizer.weight_decay)]

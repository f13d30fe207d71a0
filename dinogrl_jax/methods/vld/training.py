"""Which of VLD's parameters are trained, and how."""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Group
from dinogrl_jax.methods.schedules import by_cosine


def groups(config: ConfigDict) -> list[Group]:
    """All but the text tower and the fixed words; classifiers, prompts and biases are faster.

    Rates are not multiples of each other, as the schedule begins and ends at the same floor for
    all. The decay is beside the gradient, and is multiplied by the rate.
    """
    c, steps = config.optimizer, config.train.steps_per_epoch

    def group(pattern: str, multiplier: float) -> Group:
        rate = by_cosine(c, multiplier * c.learning_rate, steps)
        return Group(pattern, rate, c.weight_decay, decoupled=True)

    frozen = [Group("text/.*|prompts/(prefix|suffix)", None)] * config.model.prompts.on
    return [
        *frozen,
        group(r"classifier\w*/.*|prompts/learned", c.head_multiplier),
        group(".*/bias", c.bias_multiplier),
        group(".*", 1.0),
    ]

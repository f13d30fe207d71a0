"""Which of X-ReID's parameters are trained, and how."""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Group
from dinogrl_jax.methods.schedules import by_steps


def groups(config: ConfigDict) -> list[Group]:
    """All but the patches' kernel and the shifts of BatchNorm, at five rates.

    A bias, a classifier and what belongs to the interactions of frames each multiply the rate. The
    decay is in the gradient, also of what has none in a step: cameras that are not in the batch.
    """
    c = config.optimizer
    rate = by_steps(c, config.train.steps_per_epoch)

    def group(pattern: str, *multipliers: float) -> Group:
        factor = 1.0
        for multiplier in multipliers:
            factor *= multiplier
        return Group(pattern, lambda step: factor * rate(step), c.weight_decay)

    interactions = [
        group(f"classifier_({INTERACTIONS})/.*", c.classifier_multiplier, c.interaction_multiplier),
        group(f"({INTERACTIONS})/.*bias", c.bias_multiplier, c.interaction_multiplier),
        group(rf"({INTERACTIONS})/.*|norm_({INTERACTIONS})\w*/scale", c.interaction_multiplier),
    ]
    return [
        Group(r"image/patch_embed/kernel|norm_\w+/bias", None),
        *(interactions if config.model.sii.on else []),
        group(r"classifier\w*/.*", c.classifier_multiplier),
        group(".*/bias", c.bias_multiplier),
        group(".*", 1.0),
    ]


INTERACTIONS = "sii|lii|fused"

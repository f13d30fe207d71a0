"""Which of X-ReID's parameters are trained, and how."""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Group
from dinogrl_jax.methods.schedules import by_steps
from dinogrl_jax.methods.xreid.model import interacts


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
        group("classifier_interactions/.*", c.classifier_multiplier, c.interaction_multiplier),
        group(rf"{INTERACTIONS}/.*bias", c.bias_multiplier, c.interaction_multiplier),
        group(rf"{INTERACTIONS}/.*|norm_interactions\w*/scale", c.interaction_multiplier),
    ]
    return [
        Group(r"image/patch_embed/kernel|norm_\w+/bias", None),
        *(interactions if interacts(config.model) else []),
        group(r"classifier\w*/.*", c.classifier_multiplier),
        group(".*/bias", c.bias_multiplier),
        group(".*", 1.0),
    ]


INTERACTIONS = r"(sii|lii|cii_\w+)"

"""A method of a few numbers with everything that weights can have: for tests of their conversion.

A colour's mean → a backbone of two layers → a classifier, a table of cameras, a memory.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax import config as settings
from dinogrl_jax.interface.checks import DECLARED
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.settings import merged_declaration
from dinogrl_jax.methods.contract import Clips, Facts, ReleasedFile, StartingWeights
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.weights.published import BATCH_NORM, DENSE
from dinogrl_jax.weights.rules import Rule, under

FACTS = Facts(identities=5, cameras=(3, 8))
OWN = {
    "method": "tiny",
    "data": {"height": 4, "width": 2, "frames": 1},
    "model": {"width": 6, "head": True, "heads": 2, "tilt": 0.0},
    "pretrained": {"backbone": ""},
}
DECLARED["tiny"] = merged_declaration(settings.SETTINGS, OWN, settings.KNOWN)


class Backbone(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Dense(self.width, name="fc")(x)
        return nn.BatchNorm(use_running_average=not train, name="bn")(x)


class Model(nn.Module):
    config: ConfigDict
    facts: Facts

    @nn.compact
    def __call__(self, clips: Clips, *, train: bool):
        model, (identities, cameras) = self.config.model, self.facts
        x = Backbone(model.width, name="visible")(clips.frames.mean((2, 3, 4)), train=train)
        self.variable("memory", "centres", jnp.ones, (identities, model.width))
        table = self.param("cameras", nn.initializers.normal(), (len(cameras), model.width))
        x = x + table[clips.camera]
        if model.head:
            x = Backbone(model.width, name="head")(x, train=train)
        return nn.Dense(identities, use_bias=False, name="classifier")(x)


BACKBONE = [*under(DENSE, "fc.", "fc/"), *under(BATCH_NORM, "bn.", "bn/")]


def released_files(config: ConfigDict) -> dict[str, ReleasedFile]:
    rules = [
        *under(BACKBONE, "visible.", "visible/"),
        *under(DENSE[:1], "classifier.", "classifier/"),
        Rule("cameras", "params/cameras"),
    ]
    return {
        "model": ReleasedFile("model.pth", ("visible", "classifier", "cameras"), rules),
        "head": ReleasedFile("head.pth", ("head",), under(BACKBONE, path="head/")),
    }


def released_facts(states: Mapping, config: ConfigDict) -> Facts:
    try:
        identities = states["model"]["classifier.weight"].shape[0]
    except KeyError:
        raise InputError("model.pth (--model) has no classifier.weight") from None
    return Facts(identities, tuple(range(states["model"]["cameras"].shape[0])))


def recognised(state: Mapping[str, np.ndarray]) -> dict:
    if "first.fc.weight" not in state:
        raise InputError("holds no first.fc.weight")
    return {"width": state["first.fc.weight"].shape[0], "tilt": 0.5}


def starting_weights(config: ConfigDict) -> dict[str, StartingWeights]:
    rules = [*under(BACKBONE, "first.", "first/"), *under(BACKBONE, "second.", "second/")]
    modules = {"first": ("visible",), "second": ("head",)}
    return {
        "backbone": StartingWeights(
            "backbone", "https://example.org", modules, rules, "model", recognised, ("tilt", "head")
        )
    }


def get_config() -> ConfigDict:
    config = ConfigDict(settings.shared())
    config.update(OWN)
    return config


def random_variables(config: ConfigDict, facts: Facts = FACTS) -> dict:
    """Variables of the model, positive and all different."""
    leaves, tree = jax.tree.flatten(variable_shapes(Model(config, facts), config))
    rng = np.random.default_rng(0)
    return tree.unflatten([rng.random(x.shape, np.float32) + 0.5 for x in leaves])

"""The complete method in small: a configuration for tests, and for `--config tests/small.py`."""

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.variables import variable_shapes

PATH = __file__
IDENTITIES = 5
FACTS = Facts(IDENTITIES, cameras=(1, 2, 3))


def get_config() -> ConfigDict:
    """Frames of 64×32 pixels, two a tracklet; 8×4 patches, maps of 16×8, 7 + 3 parts a stream."""
    config = methods.default("dinogrl")
    config.data.update({"height": 64, "width": 32, "frames": 2, "workers": 0})
    config.data.update({"identities_per_batch": 2, "tracklets_per_identity": 1})
    model = config.model
    model.parts, model.embedding = (1, 2, 4), 16
    model.resnet.stages, model.resnet.width = (1, 1, 1, 1), 4
    model.dinov2.update(
        {"height": 64, "width": 32, "patch": 8, "grid": 6, "embedding": 32, "depth": 2, "heads": 2}
    )
    model.dinov2.taps = (0, 1)
    model.sasgl.update({"map_channels": 4, "hidden": 16, "pre_channels": 4})
    return config


def model(config: ConfigDict) -> nn.Module:
    return methods.named(config.method).Model(config, FACTS)


def random_variables(config: ConfigDict) -> dict:
    """Variables of the model, positive and all different."""
    leaves, tree = jax.tree.flatten(variable_shapes(model(config), config))
    rng = np.random.default_rng(0)
    return tree.unflatten([rng.random(x.shape, np.float32) + 0.5 for x in leaves])

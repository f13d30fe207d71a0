"""A method in small: a configuration for tests, and for `--config tests/small.py`.

Its sizes are in tests/methods/<name>/sizes.py, so that tests of what all methods share name none:
they take the first.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

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
NAME = next(iter(methods.METHODS))
METHOD = methods.named(NAME)


def get_config(name: str = NAME) -> ConfigDict:
    """Frames of 64×32 pixels, two a tracklet."""
    config = methods.default(name)
    config.data.update({"height": 64, "width": 32, "frames": 2, "workers": 0})
    config.data.update({"identities_per_batch": 2, "tracklets_per_identity": 1})
    sizes(name).shrink(config)
    return config


def sizes(name: str = NAME) -> ModuleType:
    """What a method's tests say of its sizes."""
    path = Path(__file__).parent / "methods" / name / "sizes.py"
    spec = importlib.util.spec_from_file_location(f"sizes_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(config: ConfigDict) -> nn.Module:
    return methods.named(config.method).Model(config, FACTS)


def random_variables(config: ConfigDict) -> dict:
    """Variables of the model, positive and all different."""
    leaves, tree = jax.tree.flatten(variable_shapes(model(config), config))
    rng = np.random.default_rng(0)
    return tree.unflatten([rng.random(x.shape, np.float32) + 0.5 for x in leaves])

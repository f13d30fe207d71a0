"""A trained model as the start of another training, with the same identities or with others."""

import contextlib
from collections.abc import Mapping

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import METHODS
from dinogrl_jax.training import checkpoint
from dinogrl_jax.weights import pretrained


def filled(variables: Mapping, identities: list, config: ConfigDict) -> tuple[dict, list[str]]:
    """A model's variables from the trained one that `config.pretrained.model` names, and lines.

    identities: of the training set; where the trained model's are others, classifiers stay as they
    are given.

    Raises InputError for a model that does not fit the configuration.
    """
    place = config.pretrained.model
    others = [name for name, path in config.pretrained.items() if path and name != "model"]
    if others:
        raise InputError(f"pretrained.model has all weights: leave pretrained.{others[0]} empty")
    manager = pretrained.checkpoints_of(place)
    with contextlib.closing(manager):
        step = checkpoint.chosen_step(manager, "best")
        pretrained.check_whole(manager, step)
        metadata = checkpoint.saved_metadata(manager, step)
        stored = METHODS[metadata.config.method].Model(
            metadata.config.model, len(metadata.identities)
        )
        shapes = pretrained.variable_shapes(stored, metadata.config)
        found = jax.device_get(checkpoint.restored(manager, step, variables=shapes)["variables"])
    own, found = (traverse_util.flatten_dict(tree, sep="/") for tree in (variables, found))
    random = set() if metadata.identities == identities else _of_identities(config)
    misfits = [
        path
        for path in own.keys() | found.keys()
        if path not in random
        and (path not in own or path not in found or own[path].shape != found[path].shape)
    ]
    if misfits:
        raise InputError(f"{place}: has another {min(misfits)} than config.model: set its sizes")
    lines = [f"model: weights of step {step} of {place}"]
    if random:
        lines.append(f"classifiers: random weights, for {len(identities)} other identities")
    kept = {path: value if path in random else found[path] for path, value in own.items()}
    return traverse_util.unflatten_dict(kept, sep="/"), lines


def _of_identities(config: ConfigDict) -> set[str]:
    """The paths of variables whose shape depends on the number of identities."""
    one, two = (
        traverse_util.flatten_dict(
            pretrained.variable_shapes(METHODS[config.method].Model(config.model, count), config),
            sep="/",
        )
        for count in (1, 2)
    )
    return {path for path in one if one[path].shape != two[path].shape}

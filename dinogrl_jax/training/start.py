"""What a training starts from: random weights, published ones, or those of a trained model."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, StartingWeights
from dinogrl_jax.methods.starting import (
    ANY_FACTS,
    check_settings,
    converted_state,
    places_in_model,
    recognised_settings,
    settings_section,
    weights_variables,
)
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.converted import check_whole, checkpoints_of, stored_variables
from dinogrl_jax.weights import torch_files


def starting_variables(
    method: ModuleType, model: nn.Module, facts: Facts, identities: list, config: ConfigDict
) -> tuple[dict, list[str]]:
    """A model's variables before the first step, and lines that say where they are from.

    The section `pretrained` of the configuration names PyTorch files, folders that
    scripts/convert.py made of them, or a run or a converted model for all of the model. identities:
    of the training set, in the order of the labels.

    Raises InputError for weights that do not fit the configuration.
    """
    variables = initial_variables(model, config)
    if config.pretrained.model:
        return with_trained_model(method, variables, facts, identities, config)
    return with_published_weights(method, variables, config)


def with_published_weights(
    method: ModuleType, variables: Mapping, config: ConfigDict
) -> tuple[dict, list[str]]:
    """Variables with the published weights that `config.pretrained` names, and a line on each.

    The line of weights that are not named says what they are and where people get them.

    Raises InputError for weights that do not fit the configuration.
    """
    lines = []
    for name, weights in method.starting_weights(config).items():
        place, title = config.pretrained[name], weights.title
        used = places_in_model(weights, variables["params"])
        if used and place:
            found = _weights_at(method, name, place, variables, config)
            variables = _with_weights(variables, found, used, place)
            lines.append(f"{title}: weights of {place}")
        elif used:
            take = f"--config.pretrained.{name}=FILE takes {weights.source}"
            lines.append(f"{title}: random weights; {take}")
        elif place:
            lines.append(f"{title}: the model has none, config.pretrained.{name} is not used")
    return dict(variables), lines


def with_trained_model(
    method: ModuleType, variables: Mapping, facts: Facts, identities: list, config: ConfigDict
) -> tuple[dict, list[str]]:
    """Variables of the trained model that `config.pretrained.model` names, and lines on them.

    Where that knows other identities or cameras, what has a row for each of them stays as given.

    Raises InputError for a model that does not fit the configuration.
    """
    place = config.pretrained.model
    others = [name for name, path in config.pretrained.items() if path and name != "model"]
    if others:
        raise InputError(f"pretrained.model has all weights: leave pretrained.{others[0]} empty")
    found, metadata = _trained_model(method, place, config)
    lines = [f"model: weights of step {metadata.step} of {place}"]
    kept: set[str] = set()
    if metadata.identities != identities:
        kept |= _paths_with_rows(method, config, Facts(2, ANY_FACTS.cameras))
        lines.append(f"classifiers: random weights, for {len(identities)} other identities")
    if tuple(metadata.cameras) != facts.cameras and (
        of_cameras := _paths_with_rows(method, config, Facts(ANY_FACTS.identities, (0, 1)))
    ):
        kept |= of_cameras
        lines.append(f"tables of cameras: random weights, for {len(facts.cameras)} other cameras")
    return _merged(variables, found, kept, place), lines


def _trained_model(
    method: ModuleType, place: str, config: ConfigDict
) -> tuple[dict, checkpoint.Metadata]:
    """The variables at a folder's best step, and what the checkpoint says about itself."""
    with contextlib.closing(checkpoints_of(place)) as manager:
        step = checkpoint.chosen_step(manager, "best")
        check_whole(manager, step)
        metadata = checkpoint.saved_metadata(manager, step)
        if metadata.config.method != config.method:
            other = metadata.config.method
            raise InputError(f"{place}: is a model of {other}, not of {config.method}")
        return stored_variables(method, manager, step), metadata


def _merged(variables: Mapping, found: Mapping, kept: set[str], place: str) -> dict:
    """The variables found, but at some paths those that were given."""
    own, found = (traverse_util.flatten_dict(tree, sep="/") for tree in (variables, found))
    misfits = [
        path
        for path in (own.keys() | found.keys()) - kept
        if path not in own or path not in found or own[path].shape != found[path].shape
    ]
    if misfits:
        raise InputError(f"{place}: has another {min(misfits)} than config.model: set its sizes")
    merged = {path: value if path in kept else found[path] for path, value in own.items()}
    return traverse_util.unflatten_dict(merged, sep="/")


def _paths_with_rows(method: ModuleType, config: ConfigDict, other: Facts) -> set[str]:
    """The paths of variables whose shapes are others with other facts than ANY_FACTS."""
    one, two = (
        traverse_util.flatten_dict(variable_shapes(method.Model(config, facts), config), sep="/")
        for facts in (ANY_FACTS, other)
    )
    return {path for path in one if one[path].shape != two[path].shape}


def _weights_at(
    method: ModuleType, name: str, place: str, variables: Mapping, config: ConfigDict
) -> dict:
    """The variables in a file of starting weights, or in what scripts/convert.py made of it."""
    if Path(place).is_dir():
        return _converted_weights(method, name, place, variables, config)
    weights, state = method.starting_weights(config)[name], torch_files.read(place)
    check_settings(weights, recognised_settings(weights, state, place), config, place)
    return converted_state(weights, state, variables, place)[0]


def _converted_weights(
    method: ModuleType, name: str, place: str, variables: Mapping, config: ConfigDict
) -> dict:
    weights = method.starting_weights(config)[name]
    with contextlib.closing(checkpoint.open_folder(place)) as manager:
        step = checkpoint.chosen_step(manager, "last")
        metadata = checkpoint.saved_metadata(manager, step)
        made = metadata.config
        if metadata.identities or made.method != config.method or not made.pretrained[name]:
            raise InputError(f"{place}: is not a folder that convert.py --from {name} made")
        if weights.section:
            check_settings(weights, settings_section(weights, made).to_dict(), config, place)
        stored = _weights_shapes(method, name, made)
        if _shapes(stored) != _shapes(weights_variables(weights, variables)):
            raise InputError(f"{place}: was made with other sizes in config.model")
        return jax.device_get(checkpoint.restored(manager, step, variables=stored)["variables"])


def _weights_shapes(method: ModuleType, name: str, config: ConfigDict) -> dict:
    """The shapes of starting weights by themselves."""
    weights: StartingWeights = method.starting_weights(config)[name]
    return weights_variables(weights, variable_shapes(method.Model(config, ANY_FACTS), config))


def _with_weights(
    variables: Mapping, weights: Mapping, places: list[tuple[str, str]], source: str
) -> dict:
    """Variables with the modules of weights at all of their places; source: of the weights."""
    changed = variables
    for module, place in places:
        changed = _with_module(changed, weights, module, place.split("/"))
    if _shapes(changed) != _shapes(variables):
        raise InputError(f"{source}: fits one place of config.model, but not all of it")
    return changed


def _with_module(variables: Mapping, weights: Mapping, module: str, place: list[str]) -> dict:
    """Variables with one module, in all its collections, in place of another."""
    changed = dict(variables)
    for collection, modules in weights.items():
        if value := (modules.get(module) if module else modules):
            changed[collection] = _with_subtree(variables[collection], place, value)
    return changed


def _with_subtree(tree: Mapping, path: list[str], value: Mapping) -> Mapping:
    """A nested dictionary with a value at a path."""
    if not path:
        return value
    return {**tree, path[0]: _with_subtree(tree[path[0]], path[1:], value)}


def _shapes(tree: Mapping) -> dict:
    return jax.tree.map(jnp.shape, tree)

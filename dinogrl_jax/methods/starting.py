"""Published weights that a training starts from: one PyTorch file as variables of some modules."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, StartingWeights
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.weights import torch_files
from dinogrl_jax.weights.conversion import Report, to_variables
from dinogrl_jax.weights.rules import Rule, rule_collections

ANY_FACTS = Facts(identities=1, cameras=(0,))  # where no shape that counts depends on them


def starting_variables_of_file(
    method: ModuleType, name: str, path: str, config: ConfigDict
) -> tuple[dict, ConfigDict, Report]:
    """The variables in a file of starting weights, the configuration for them, and a report.

    name: a key of the method's `starting_weights`. The configuration gets the settings that the
    weights decide.

    Raises InputError for a file that holds other weights, or that the configured model cannot use.
    """
    config = config.copy_and_resolve_references()
    weights, state = method.starting_weights(config)[name], torch_files.read(path)
    if weights.recognised:
        settings_section(weights, config).update(recognised_settings(weights, state, path))
        weights = method.starting_weights(config)[name]
    config.pretrained[name] = str(path)
    shapes = variable_shapes(method.Model(config, ANY_FACTS), config)
    variables, report = converted_state(weights, state, shapes, path)
    return variables, config, report


def recognised_settings(
    weights: StartingWeights, state: Mapping[str, np.ndarray], path: str
) -> dict[str, Any]:
    """The settings that a state dict decides; {} if nothing is recognised by the weights.

    Raises InputError, which names the file, where the state dict is of something else.
    """
    try:
        return weights.recognised(state) if weights.recognised else {}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def check_settings(
    weights: StartingWeights, found: Mapping[str, Any], config: ConfigDict, path: str
) -> None:
    """Raise InputError if weights that were found are of other sizes than the configured ones."""
    if not weights.section:
        return
    section = settings_section(weights, config)
    differing = {key: value for key, value in found.items() if section[key] != value}
    if differing.keys() - set(weights.advised):
        has = ", ".join(f"{key} {section[key]}" for key in differing)
        settings = " ".join(
            f"--config.{weights.section}.{key}={str(value).replace(' ', '')}"
            for key, value in differing.items()
        )
        raise InputError(
            f"{path}: is another {weights.title} than the configured {has}: set {settings}"
        )


def settings_section(weights: StartingWeights, config: ConfigDict) -> ConfigDict:
    """The section of a configuration that the weights decide."""
    for name in weights.section.split("."):
        config = config[name]
    return config


def converted_state(
    weights: StartingWeights, state: Mapping[str, np.ndarray], shapes: Mapping, path: str
) -> tuple[dict, Report]:
    """A state dict as variables of the modules in it, and a report.

    shapes: of the whole model, or its variables. Tensors of modules that the model lacks are left
    out.

    Raises InputError if the state dict does not fit, or the model has none of the modules.
    """
    targets = weights_variables(weights, shapes)
    if not any(targets.values()):
        raise InputError(f"{path}: the configured model has no {weights.title}")
    unused = [rule for rule in weights.rules if not _is_used(rule, weights, shapes)]
    used = {
        key: array
        for key, array in state.items()
        if all(rule.match_key(key) is None for rule in unused)
    }
    return to_variables(used, weights.rules, targets, source_name=str(path))


def weights_variables(weights: StartingWeights, variables: Mapping) -> dict:
    """Of a model's variables those that the weights have, by collection and module of the file.

    Of a module that several places of the model take, the variables are those of the first place
    there is.
    """
    return {
        collection: _modules(weights, variables[collection])
        for collection in rule_collections(weights.rules)
        if collection in variables
    }


def places_in_model(weights: StartingWeights, params: Mapping) -> list[tuple[str, str]]:
    """The (module of the file, place) of those places that a model's parameters have."""
    return [
        (module, place)
        for module, places in weights.modules.items()
        for place in places
        if subtree(params, place) is not None
    ]


def subtree(tree: Mapping | None, path: str) -> Mapping | None:
    """What is at a path of a nested dictionary; None if nothing is there."""
    for name in path.split("/"):
        tree = tree.get(name) if tree is not None else None
    return tree


def _modules(weights: StartingWeights, tree: Mapping) -> dict:
    found = {}
    for module, places in weights.modules.items():
        present = [at for place in places if (at := subtree(tree, place)) is not None]
        found |= {module: present[0]} if present else {}
    return found.get("", found)


def _is_used(rule: Any, weights: StartingWeights, variables: Mapping) -> bool:
    """Whether a rule is of a module that the model has; what is dropped is always of one."""
    if not isinstance(rule, Rule) or "" in weights.modules:
        return True
    modules = {module for module, _ in places_in_model(weights, variables["params"])}
    inside = (path.partition("/")[2] for path in rule.paths)
    return any(path.startswith(f"{module}/") for path in inside for module in modules)

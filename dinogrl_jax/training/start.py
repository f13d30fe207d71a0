"""What a training starts from: random weights, published ones, or those of a trained model.

Published weights are in a PyTorch file, or in the checkpoint that scripts/convert.py made of one.
"""

import contextlib
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from dinogrl_jax.interface.checks import check_section
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.settings import leaves
from dinogrl_jax.methods.contract import Facts, StartingWeights
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.stored import stored_model
from dinogrl_jax.weights import foreign, spellings
from dinogrl_jax.weights.conversion import (
    MISSING,
    NO_RULE,
    ConversionError,
    Report,
    check_finite,
    to_variables,
)
from dinogrl_jax.weights.files.folders import weights_in_folder
from dinogrl_jax.weights.published import RESNETS, resnet_settings
from dinogrl_jax.weights.rules import Rule, rule_collections

ANY_FACTS = Facts(identities=1, cameras=(0,))  # where no shape that counts depends on them


def starting_variables(
    method: ModuleType, model: nn.Module, facts: Facts, identities: list, config: ConfigDict
) -> tuple[dict, list[str]]:
    """A model's variables before the first step, and lines that say where they are from.

    The section `pretrained` of the configuration names files or folders of published weights, or
    one of a trained model. identities: of the training set, in the order of the labels.

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
    """
    lines = []
    for name, weights in method.starting_weights(config).items():
        place, title = config.pretrained[name], weights.title
        used = _places(weights, variables["params"])
        if used and place:
            beside = ""
            if _is_converted(place):
                found = _starting_variables_of_folder(method, name, place, config)
            else:
                given = method, name, place, config
                found, _, report = starting_variables_of_file(*given, adapts=False)
                count = len(report.beside)
                beside = f"; {count} tensors beside them are left out" if count else ""
                beside += f"; {report.remark}" if report.remark else ""
            if _shapes(found) != _shapes(_variables_alone(weights, variables)):
                raise InputError(f"{place}: was made with other sizes in config.model")
            variables = _with_weights(variables, found, used, place)
            lines.append(f"{title}: weights of {place}{beside}")
        elif used:
            take = f"--config.pretrained.{name}=FILE takes {weights.source}"
            lines.append(f"{title}: random weights; {take}")
        elif place:
            lines.append(f"{title}: the model has none, config.pretrained.{name} is not used")
    return dict(variables), lines


def _is_converted(place: str) -> bool:
    """Whether a place is a folder of scripts/convert.py's, and not one of files of weights."""
    folder = Path(place)
    with errors_naming(place):
        has_steps = any(folder.glob("*/metadata"))
        return folder.is_dir() and (has_steps or weights_in_folder(folder) is None)


def with_trained_model(
    method: ModuleType, variables: Mapping, facts: Facts, identities: list, config: ConfigDict
) -> tuple[dict, list[str]]:
    """Variables of the trained model that `config.pretrained.model` names, and lines on them.

    Where that knows other identities or cameras, what has a row for each of them stays as given.
    """
    place = config.pretrained.model
    others = [name for name, path in config.pretrained.items() if path and name != "model"]
    if others:
        raise InputError(f"pretrained.model has all weights: leave pretrained.{others[0]} empty")
    manager, metadata, _ = stored_model(place, "best")
    with contextlib.closing(manager):
        if metadata.config.method != config.method:
            other = metadata.config.method
            raise InputError(f"{place}: is a model of {other}, not of {config.method}")
        found = checkpoint.stored_variables(method, manager, metadata.step)
    lines, kept = [f"model: weights of step {metadata.step} of {place}"], set()
    if metadata.identities != identities:
        kept |= _paths_with_rows(method, config, ANY_FACTS._replace(identities=2))
        lines.append(f"classifiers: random weights, for {len(identities)} other identities")
    if tuple(metadata.cameras) != facts.cameras:
        tables = _paths_with_rows(method, config, ANY_FACTS._replace(cameras=(0, 1)))
        kept |= tables
        line = f"tables of cameras: random weights, for {len(facts.cameras)} other cameras"
        lines += [line] if tables else []
    own, found = (flatten_dict(tree, sep="/") for tree in (variables, found))
    for path in sorted((own.keys() | found.keys()) - kept):
        if path not in own or path not in found or own[path].shape != found[path].shape:
            raise InputError(f"{place}: has another {path} than config.model: set its sizes")
    check_finite({path: found[path] for path in own.keys() - kept}, place)
    merged = {path: value if path in kept else found[path] for path, value in own.items()}
    return unflatten_dict(merged, sep="/"), lines


def _paths_with_rows(method: ModuleType, config: ConfigDict, other: Facts) -> set[str]:
    """The paths of variables whose shapes are others with other facts than ANY_FACTS."""
    models = (method.Model(config, facts) for facts in (ANY_FACTS, other))
    one, two = (flatten_dict(variable_shapes(model, config), sep="/") for model in models)
    return {path for path in one if one[path].shape != two[path].shape}


def starting_variables_of_file(
    method: ModuleType, name: str, path: str, config: ConfigDict, adapts: bool = True
) -> tuple[dict, ConfigDict, Report]:
    """The variables in a file of starting weights, the configuration for them, and a report.

    name: a key of the method's `starting_weights`. The configuration adapts to the settings that
    the weights decide, or has to have them. Tensors of modules that its model lacks are left out.

    Raises InputError for a file that holds other weights, or that the configured model cannot use.
    """
    asked, config = config, config.copy_and_resolve_references()
    config.pretrained[name] = str(path)
    weights = method.starting_weights(config)[name]
    state, beside = spellings.read(path, weights.rules)
    remark = weights.remark(state) if weights.remark else ""
    if weights.recognised:
        with errors_naming(path):
            _section(weights, config).update(_recognised_settings(weights, state))
            if adapts:
                check_section(config, weights.section)
    if not adapts:
        _check_settings(weights, config, asked, path)
    weights, targets = method.starting_weights(config)[name], _shapes_alone(method, name, config)
    if not any(targets.values()):
        raise InputError(f"{path}: the configured model has no {weights.title}")
    if weights.prepared:
        with errors_naming(path):
            state = weights.prepared(state)
    present = {module for modules in targets.values() for module in modules}
    absent = tuple(f"{module}/" for module in weights.modules if module and module not in present)
    unused = [
        rule
        for rule in weights.rules
        if isinstance(rule, Rule)
        and all(f"{place.partition('/')[2]}/".startswith(absent) for place in rule.paths)
    ]
    used = {key: x for key, x in state.items() if all(r.match_key(key) is None for r in unused)}
    try:
        variables, report = to_variables(used, weights.rules, targets, source_name=str(path))
    except ConversionError as error:
        raise _explained(error, weights, state, path, config, adapts) from None
    return variables, config, report._replace(beside=beside, remark=remark)


def _recognised_settings(weights: StartingWeights, state: Mapping) -> dict:
    """The settings that a state dict decides; InputError says whose it is where it is another's."""
    try:
        return weights.recognised(state)
    except InputError as error:
        owner = _foreign_owner(weights, state)
        raise InputError(f"{error}; it holds {owner}" if owner else str(error)) from error


def _foreign_owner(weights: StartingWeights, state: Mapping) -> str | None:
    """Whose model a state dict is, where it is not one of those that are asked for."""
    owner = foreign.owner_of(state)
    return None if owner and owner.endswith(weights.title) else owner


def _explained(
    error: ConversionError,
    weights: StartingWeights,
    state: Mapping,
    path: str,
    config: ConfigDict,
    adapts: bool,
) -> InputError:
    """The error of a conversion with what the file holds instead: one line, where settings help."""
    for name, section in config.model.items():
        if isinstance(section, ConfigDict) and (other := _other_resnet(state, section)):
            has = ", ".join(f"{key} {section[key]}" for key in other)
            found = RESNETS.get(other.get("stages"), "another ResNet")
            flags = _flags(f"model.{name}", other, "" if adapts else "--config.")
            where = "in the file of --config " if adapts else ""
            return InputError(f"{path}: is {found}, not the configured {has}: {where}set {flags}")
    if any(reason in (NO_RULE, MISSING) for _, reason in error.problems):
        return ConversionError(str(path), error.problems, _foreign_owner(weights, state))
    return error


def _other_resnet(state: Mapping, section: ConfigDict) -> dict:
    """The settings in which a ResNet of a state dict is not the one of a section of them."""
    try:
        theirs = resnet_settings(state)
    except InputError:
        return {}
    if not all(key in section for key in theirs):
        return {}
    return {key: value for key, value in theirs.items() if section[key] != value}


def _flags(section: str, settings: Mapping, option: str = "--config.") -> str:
    """The options of a script that set these settings of a section."""
    flags = (f"{section}.{key}={str(value).replace(' ', '')}" for key, value in settings.items())
    return " ".join(option + flag for flag in flags)


def _starting_variables_of_folder(
    method: ModuleType, name: str, folder: str, config: ConfigDict
) -> dict:
    """The variables of a folder that scripts/convert.py made of a file."""
    with contextlib.closing(checkpoint.open_folder(folder)) as manager:
        step = checkpoint.chosen_step(manager, "last")
        metadata = checkpoint.saved_metadata(manager, step)
        made = metadata.config
        if metadata.identities or made.method != config.method or not made.pretrained[name]:
            raise InputError(f"{folder}: is not a folder that convert.py --from {name} made")
        _check_settings(method.starting_weights(config)[name], made, config, folder)
        shapes = _shapes_alone(method, name, made)
        variables = checkpoint.restored(manager, step, variables=shapes)["variables"]
    variables = jax.device_get(variables)
    check_finite(variables, folder)
    return variables


def _check_settings(
    weights: StartingWeights, made: ConfigDict, config: ConfigDict, place: str
) -> None:
    """Raise InputError if weights are for other settings than those of the model."""
    if not weights.section:
        return
    theirs, own = (dict(leaves(_section(weights, one))) for one in (made, config))
    sizes_first = sorted(theirs.items(), key=lambda item: item[0] in weights.advised)
    differing = {key: value for key, value in sizes_first if own[key] != value}
    if differing.keys() - set(weights.advised):
        has = ", ".join(f"{key} {own[key]}" for key in differing)
        flags = _flags(weights.section, differing)
        raise InputError(
            f"{place}: is another {weights.title} than the configured {has}: set {flags}"
        )


def _section(weights: StartingWeights, config: ConfigDict) -> ConfigDict:
    return functools.reduce(getattr, weights.section.split("."), config)


def _shapes_alone(method: ModuleType, name: str, config: ConfigDict) -> dict:
    shapes = variable_shapes(method.Model(config, ANY_FACTS), config)
    return _variables_alone(method.starting_weights(config)[name], shapes)


def _variables_alone(weights: StartingWeights, variables: Mapping) -> dict:
    """Of a model's variables those that weights have, by collection and module of the file.

    Of a module that several places of the model take, they are those of the first there is.
    """
    found = {}
    for collection in rule_collections(weights.rules) & variables.keys():
        tree = variables[collection]
        places = reversed(_places(weights, tree))
        modules = {module: _subtree(tree, place) for module, place in places}
        found[collection] = modules.get("", modules)
    return found


def _places(weights: StartingWeights, tree: Mapping) -> list[tuple[str, str]]:
    """The (module of the file, place in the model) of all places that a collection has."""
    pairs = ((module, place) for module, places in weights.modules.items() for place in places)
    return [(module, place) for module, place in pairs if _subtree(tree, place) is not None]


def _subtree(tree: Any, path: str) -> Any:
    """What is at a path of a tree, a module or a parameter; None where there is nothing."""
    for name in path.split("/"):
        tree = tree.get(name) if tree is not None else None
    return tree


def _with_weights(
    variables: Mapping, weights: Mapping, places: list[tuple[str, str]], source: str
) -> dict:
    """Variables with the modules of weights at all of their places; source: of the weights."""
    variables = jax.tree.map(lambda leaf: leaf, variables)  # in dictionaries of its own
    for (module, place), (collection, tree) in itertools.product(places, weights.items()):
        new = tree.get(module) if module else tree
        if not jax.tree.leaves(new):
            continue
        if _shapes(_subtree(variables[collection], place)) != _shapes(new):
            raise InputError(f"{source}: fits one place of config.model, but not all of it")
        *around, name = place.split("/")
        functools.reduce(dict.__getitem__, around, variables[collection])[name] = new
    return variables


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)

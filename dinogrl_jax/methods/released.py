"""The PyTorch files of a released model ↔ its variables, for any method.

The files hold the collections that their rules name; a collection that none of them names, such as
a memory of the training, starts from its initial values and is left out on the way back.
"""

from collections.abc import Mapping
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, ReleasedFile, Variables
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.weights import spellings
from dinogrl_jax.weights.conversion import Report, to_state, to_variables
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.rules import rule_collections


def released_model(
    method: ModuleType, paths: Mapping[str, str], config: ConfigDict
) -> tuple[dict, Facts, list[Report]]:
    """The variables of a released model, what it says of its data, and what went where.

    paths: of its files, by their names in the method's `released_files`; those that hold modules of
    the configured model.

    Raises InputError where a file is missing or too many, or does not fit the configuration.
    """
    rules = {name: file.rules for name, file in method.released_files(config).items()}
    states = {
        name: spellings.without_prefix(torch_files.read(path), rules.get(name, ()))
        for name, path in paths.items()
    }
    try:
        facts = method.released_facts(states, config)
    except InputError as error:
        given = " ".join(f"--{name} {path}" for name, path in paths.items())
        raise InputError(f"{error}: given is {given or 'no file'}") from error
    model = method.Model(config, facts)
    shapes = variable_shapes(model, config)
    files = _files_with_variables(method, shapes, config)
    for name, (file, targets) in files.items():
        if any(targets.values()) != (name in paths):
            problem = "is not needed" if name in paths else "is missing"
            raise InputError(f"{file.name} (--{name}) {problem} with the configured model")
    variables, reports = {}, []
    for name in (name for name in files if name in paths):
        file, targets = files[name]
        source = str(paths[name])
        found, report = to_variables(states[name], file.rules, targets, source_name=source)
        reports.append(report)
        for collection, modules in found.items():
            variables.setdefault(collection, {}).update(modules)
    if variables.keys() != shapes.keys():
        variables = {**initial_variables(model, config), **variables}
    return variables, facts, reports


def released_states(
    method: ModuleType, variables: Variables, config: ConfigDict
) -> dict[str, tuple[dict[str, np.ndarray], Report]]:
    """The state dicts of a released model's files, by the files' names: the way back."""
    files = _files_with_variables(method, variables, config).values()
    return {
        file.name: to_state(content, file.rules, name=file.name)
        for file, content in files
        if any(content.values())
    }


def _files_with_variables(
    method: ModuleType, variables: Variables, config: ConfigDict
) -> dict[str, tuple[ReleasedFile, dict]]:
    """The released files by name, each with the variables of its modules that files hold.

    Raises InputError where the method has no files, or a module of its model is in none of them.
    """
    files = method.released_files(config)
    if not files:
        raise InputError(f"{method.TITLE} has no released files")
    collections = rule_collections(rule for file in files.values() for rule in file.rules)
    held = {module for file in files.values() for module in file.modules}
    for collection in collections & variables.keys():
        if left := variables[collection].keys() - held:
            raise InputError(f"{method.TITLE}: no released file holds the module {min(left)}")
    found = {}
    for name, file in files.items():
        content = {
            collection: {module: x for module, x in tree.items() if module in file.modules}
            for collection, tree in variables.items()
            if collection in collections
        }
        found[name] = file, content
    return found

"""The PyTorch files of a released model ↔ its variables, for any method.

The files hold the collections that their rules name; a collection that none of them names, such as
a memory of the training, starts from its initial values and is left out on the way back.
"""

from collections.abc import Iterable, Mapping
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, ReleasedFile, Variables
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.weights import torch_files
from dinogrl_jax.weights.conversion import Report, to_state, to_variables
from dinogrl_jax.weights.rules import rule_collections

State = Mapping[str, np.ndarray]


def released_model(
    method: ModuleType, paths: Mapping[str, str], config: ConfigDict
) -> tuple[dict, Facts, list[Report]]:
    """The variables of a released model, what it says of its data, and what went where.

    paths: of its files, by their names in the method's `released_files`; those that hold modules of
    the configured model.

    Raises InputError where a file is missing or too many, or does not fit the configuration.
    """
    states = {name: torch_files.read(path) for name, path in paths.items()}
    facts = _released_facts(method, paths, states, config)
    model = method.Model(config, facts)
    shapes, files = variable_shapes(model, config), method.released_files(config)
    _check_complete(files, paths, shapes)
    collections = rule_collections(rule for file in files.values() for rule in file.rules)
    variables = {name: {} for name in shapes if name in collections}
    reports = []
    for name in (name for name in files if name in paths):
        file, path = files[name], str(paths[name])
        targets = _file_variables(shapes, file, collections)
        found, report = to_variables(states[name], file.rules, targets, source_name=path)
        reports.append(report)
        for collection in variables:
            variables[collection] |= found[collection]
    if variables.keys() != shapes.keys():
        variables = {**initial_variables(model, config), **variables}
    return variables, facts, reports


def released_states(
    method: ModuleType, variables: Variables, config: ConfigDict
) -> dict[str, tuple[dict[str, np.ndarray], Report]]:
    """The state dicts of a released model's files, by the files' names: the way back."""
    files, states = method.released_files(config), {}
    collections = rule_collections(rule for file in files.values() for rule in file.rules)
    for file in files.values():
        content = _file_variables(variables, file, collections)
        if any(content.values()):
            states[file.name] = to_state(content, file.rules, name=file.name)
    return states


def _released_facts(
    method: ModuleType, paths: Mapping[str, str], states: Mapping[str, State], config: ConfigDict
) -> Facts:
    try:
        return method.released_facts(states, config)
    except InputError as error:
        given = " ".join(f"--{name} {path}" for name, path in paths.items())
        raise InputError(f"{error}: given is {given or 'no file'}") from error


def _check_complete(
    files: Mapping[str, ReleasedFile], given: Iterable[str], shapes: Mapping
) -> None:
    for name, file in files.items():
        needed = any(module in tree for tree in shapes.values() for module in file.modules)
        if needed != (name in given):
            problem = "is missing" if needed else "is not needed"
            raise InputError(f"{file.name} (--{name}) {problem} with the configured model")


def _file_variables(variables: Mapping, file: ReleasedFile, collections: set[str]) -> dict:
    """Those of a file's modules and of the collections that files hold."""
    return {
        collection: {name: value for name, value in tree.items() if name in file.modules}
        for collection, tree in variables.items()
        if collection in collections
    }

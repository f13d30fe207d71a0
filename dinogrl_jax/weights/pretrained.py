"""Published PyTorch files as variables of a model, whole or in part, and back."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import METHODS
from dinogrl_jax.methods.dinogrl.weights import CLASSIFIER, Part
from dinogrl_jax.training import checkpoint
from dinogrl_jax.weights import torch_files
from dinogrl_jax.weights.conversion import Report, to_state, to_variables
from dinogrl_jax.weights.published import dinov2_settings

SIZES = ("patch", "grid", "embedding", "depth", "heads", "mlp", "mlp_ratio", "registers")
ADVISED = ("antialias", "offset", "taps")  # go with the weights, but do not have to


def variable_shapes(model: nn.Module, config: ConfigDict) -> dict:
    """The shapes and types of a model's variables; nothing is computed."""
    d = config.data
    frames = jax.ShapeDtypeStruct((1, 2, 1, d.height, d.width, 3), jnp.float32)
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), frames)


def released_model(paths: Mapping[str, str], config: ConfigDict) -> tuple[dict, int, list[Report]]:
    """The variables of a released model, how many identities it knows, and what went where.

    paths: of its files, by their names in the method's `published_files`; those that the configured
    streams need.

    Raises InputError where a file is missing or too many, or does not fit the configuration.
    """
    method = METHODS[config.method]
    states = {name: torch_files.read(path) for name, path in paths.items()}
    identities = _identities(paths, states)
    shapes = variable_shapes(method.Model(config.model, identities), config)
    variables, reports = {collection: {} for collection in shapes}, []
    for name, file in method.published_files(config.model).items():
        needed = any(module in shapes["params"] for module in file.modules)
        if needed != (name in paths):
            problem = "is missing" if needed else "is not needed"
            raise InputError(f"{file.name} (--{name}) {problem} with model.streams and model.pbmge")
        if needed:
            part, report = to_variables(
                states[name], file.rules, _selected(shapes, file.modules), source_name=paths[name]
            )
            reports.append(report)
            for collection in variables:
                variables[collection] |= part[collection]
    return variables, identities, reports


def released_states(
    variables: Mapping, config: ConfigDict
) -> dict[str, tuple[dict[str, np.ndarray], Report]]:
    """The state dicts of the files of a released model, by file name: the way back."""
    states = {}
    for file in METHODS[config.method].published_files(config.model).values():
        part = _selected(variables, file.modules)
        if part["params"]:
            states[file.name] = to_state(part, file.rules, name=file.name)
    return states


def released_part(name: str, path: str, config: ConfigDict) -> tuple[dict, ConfigDict, Report]:
    """The variables of a part by itself, the configuration with the part's sizes, and a report.

    name: a key of `config.pretrained`. DINOv2's size is recognised by its weights.

    Raises InputError for a file that is not of this part.
    """
    state = torch_files.read(path)
    config = config.copy_and_resolve_references()
    if name == "dinov2":
        config.model.dinov2.update(_recognised(path, state))
    part, shapes = _part(name, config)
    variables, report = to_variables(state, part.rules, shapes, source_name=str(path))
    config.pretrained[name] = str(path)
    return variables, config, report


def filled(variables: Mapping, config: ConfigDict) -> tuple[dict, list[str]]:
    """A model's variables with the parts that `config.pretrained` names, and a line on each part.

    A name is a PyTorch file or a folder that scripts/convert.py made of one. The line of a part
    that is not named says what the file is and where people get it.

    Raises InputError for a file that does not fit the configuration.
    """
    lines = []
    for name, part in METHODS[config.method].published_parts(config.model).items():
        place = config.pretrained[name]
        targets = [
            (source, target)
            for source, paths in part.modules.items()
            for target in paths
            if _at(variables["params"], target) is not None
        ]
        if targets and place:
            weights, shapes = _weights(name, place, config), jax.tree.map(jnp.shape, variables)
            for source, target in targets:
                variables = _grafted(variables, weights, source, target)
            if jax.tree.map(jnp.shape, variables) != shapes:
                raise InputError(f"{place}: fits one place of config.model, but not all of it")
            lines.append(f"{part.title}: weights of {place}")
        elif targets:
            lines.append(
                f"{part.title}: random weights; --config.pretrained.{name}=FILE takes {part.source}"
            )
        elif place:
            lines.append(f"{part.title}: the model has none, config.pretrained.{name} is not used")
    return dict(variables), lines


def checkpoints_of(folder: str) -> ocp.CheckpointManager:
    """The checkpoints of a run's folder or of a converted model's.

    Raises InputError where there are none.
    """
    path = Path(folder)
    inner = path / "checkpoints"
    return checkpoint.open_folder(inner if inner.is_dir() else path)


def check_whole(manager: ocp.CheckpointManager, step: int) -> None:
    """Raise InputError where a checkpoint holds a converted part and not a model."""
    metadata = checkpoint.saved_metadata(manager, step)
    if not metadata.identities:
        parts = ", ".join(name for name, path in metadata.config.pretrained.items() if path)
        raise InputError(f"{manager.directory} holds a part ({parts}) and no model")


def write_checkpoint(folder: Path, variables: Mapping, metadata: checkpoint.Metadata) -> None:
    """One step in a folder that exists."""
    manager = checkpoint.open_folder(folder, create=True)
    try:
        checkpoint.save(manager, dict(variables), metadata)
        checkpoint.finish(manager)
    finally:
        manager.close()


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[Path]:
    """A folder to write into, which appears under its name when the block ends without an error.

    Raises InputError where something is there already.
    """
    place = Path(path).absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise InputError(f"{path} exists: choose another --out")
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.replace(place)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _identities(paths: Mapping[str, str], states: Mapping[str, Mapping]) -> int:
    classifier = states.get("model", {}).get(CLASSIFIER)
    if classifier is None or classifier.ndim != 3 or not classifier.shape[2]:
        where = paths.get("model", "--model")
        raise InputError(f"{where}: has no {CLASSIFIER} [parts, channels, identities]")
    return classifier.shape[2]


def _recognised(path: str, state: Mapping[str, np.ndarray]) -> dict:
    try:
        return dinov2_settings(state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def _check_dinov2(place: str, found: Mapping, config: ConfigDict) -> None:
    differing = {k: found[k] for k in (*SIZES, *ADVISED) if k in found and config[k] != found[k]}
    if differing.keys() & set(SIZES):
        has = ", ".join(f"{k} {config[k]}" for k in differing)
        settings = " ".join(
            f"--config.model.dinov2.{k}={str(v).replace(' ', '')}" for k, v in differing.items()
        )
        raise InputError(f"{place}: is another DINOv2 than the configured {has}: set {settings}")


def _part(name: str, config: ConfigDict) -> tuple[Part, dict]:
    """A part and the shapes of its variables by itself, whatever streams are configured."""
    config = config.copy_and_resolve_references()
    config.model.update({"streams": ("gait", "appearance"), "pbmge": False})
    method = METHODS[config.method]
    shapes = variable_shapes(method.Model(config.model, 1), config)
    part = method.published_parts(config.model)[name]
    tree = {}
    for collection, whole in shapes.items():
        modules = {source: _at(whole, paths[0]) for source, paths in part.modules.items()}
        tree[collection] = modules.get("", modules) or {}
    return part, tree


def _weights(name: str, place: str, config: ConfigDict) -> dict:
    if not Path(place).is_dir():
        state = torch_files.read(place)
        if name == "dinov2":
            _check_dinov2(place, _recognised(place, state), config.model.dinov2)
        part, shapes = _part(name, config)
        return to_variables(state, part.rules, shapes, source_name=str(place))[0]
    with contextlib.closing(checkpoint.open_folder(place)) as manager:
        step = checkpoint.chosen_step(manager, "last")
        metadata = checkpoint.saved_metadata(manager, step)
        if metadata.identities or not metadata.config.pretrained[name]:
            raise InputError(f"{place}: is not a folder that convert.py --from {name} made")
        stored, wanted = _part(name, metadata.config)[1], _part(name, config)[1]
        if name == "dinov2":
            _check_dinov2(place, metadata.config.model.dinov2.to_dict(), config.model.dinov2)
        if jax.tree.map(_shape, stored) != jax.tree.map(_shape, wanted):
            raise InputError(f"{place}: was made with other sizes in config.model")
        return jax.device_get(checkpoint.restored(manager, step, variables=wanted)["variables"])


def _shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    return leaf.shape


def _selected(tree: Mapping, modules: tuple[str, ...]) -> dict:
    return {
        collection: {name: value for name, value in whole.items() if name in modules}
        for collection, whole in tree.items()
    }


def _at(tree: Mapping, path: str) -> Mapping | None:
    for name in path.split("/"):
        tree = tree.get(name) if tree is not None else None
    return tree


def _grafted(variables: Mapping, weights: Mapping, source: str, target: str) -> dict:
    """The variables with a part's module in place of the one at the target."""

    def replaced(tree: Mapping, names: list[str], value: Mapping) -> dict:
        if not names:
            return value
        return {**tree, names[0]: replaced(tree[names[0]], names[1:], value)}

    grafted = dict(variables)
    for collection, whole in weights.items():
        value = whole.get(source) if source else whole
        if value:
            grafted[collection] = replaced(variables[collection], target.split("/"), value)
    return grafted

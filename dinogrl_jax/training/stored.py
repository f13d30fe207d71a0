"""A stored model, wherever it lies: a run, a converted model, or the folder of one of its steps."""

import contextlib
import hashlib
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint as ocp

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import open_file
from dinogrl_jax.training import checkpoint
from dinogrl_jax.weights.files import folders


class StoredModel(NamedTuple):
    manager: ocp.CheckpointManager
    metadata: checkpoint.Metadata  # of the step that was asked for
    folder: Path  # of the run or the converted model


def stored_model(place: str | Path, which: str) -> StoredModel:
    """The model of a run, of scripts/convert.py, or of a step of either, which then counts.

    which: the step of a run: "best", "last" or a number.

    Raises InputError where no whole model lies there.
    """
    manager, which = manager_and_step(place, which)
    folder = Path(manager.directory)
    inside = folder.name == "checkpoints" and (folder.parent / "config.json").exists()
    metadata = checkpoint.model_metadata(manager, which)
    return StoredModel(manager, metadata, folder.parent if inside else folder)


def manager_and_step(place: str | Path, which: str) -> tuple[ocp.CheckpointManager, str]:
    """The checkpoints in or around a folder, and which of them is meant."""
    path = Path(place).absolute()
    if not (path / "metadata").is_dir():
        return checkpoint.checkpoints_of(path), which
    if not path.name.isdecimal():
        raise InputError(f"{path}: is a step's folder, which has to have the step's number as name")
    return checkpoint.open_folder(path.parent), path.name


def content_digest(place: str) -> str:
    """SHA-256 of a file, of a folder's files, or of the fingerprints of a stored model's weights.

    Raises InputError where none of them is there.
    """
    path = Path(place)
    if files := files_in_folder(path):
        return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()
    if path.is_dir():
        manager, which = manager_and_step(path, "best")
        with contextlib.closing(manager):
            return weights_digest(manager, checkpoint.chosen_step(manager, which))
    return file_digest(path)


def weights_digest(manager: ocp.CheckpointManager, step: int) -> str:
    """SHA-256 of the fingerprints of a stored model's weights."""
    return checkpoint.digest(checkpoint.content_of(manager, step)["fingerprints"]["variables"])


def files_in_folder(path: Path) -> list[Path]:
    """Of a folder of published weights, or of its index; none where it is neither."""
    if path.name.endswith(folders.INDEX):
        return folders.files_of_weights(path)
    stored = not path.is_dir() or any(path.glob("*/metadata"))
    return folders.files_of_weights(path) if not stored and folders.weights_in_folder(path) else []


def file_digest(path: Path) -> str:
    """SHA-256 of a file; InputError where it cannot be read."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error

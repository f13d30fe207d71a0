"""Folders of models as users name them: of a run, or what scripts/convert.py made."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import jax
import orbax.checkpoint as ocp

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.training import checkpoint


def checkpoints_of(folder: str) -> ocp.CheckpointManager:
    """The manager of the checkpoints of a run or of a converted model.

    Raises InputError if there are none.
    """
    path = Path(folder)
    inner = path / "checkpoints"
    return checkpoint.open_folder(inner if inner.is_dir() else path)


def check_whole(manager: ocp.CheckpointManager, step: int) -> None:
    """Raise InputError if a checkpoint holds starting weights and not a whole model."""
    metadata = checkpoint.saved_metadata(manager, step)
    if not metadata.identities:
        names = ", ".join(name for name, path in metadata.config.pretrained.items() if path)
        raise InputError(f"{manager.directory} holds weights ({names}) and no whole model")


def stored_variables(method: ModuleType, manager: ocp.CheckpointManager, step: int) -> dict:
    """The variables of a whole model, in the memory of this machine.

    method: of the model. Raises InputError if the checkpoint is damaged.
    """
    metadata = checkpoint.saved_metadata(manager, step)
    model = method.Model(metadata.config, metadata.facts)
    shapes = variable_shapes(model, metadata.config)
    return jax.device_get(checkpoint.restored(manager, step, variables=shapes)["variables"])


def write_checkpoint(folder: Path, variables: Mapping, metadata: checkpoint.Metadata) -> None:
    """Write a checkpoint into a folder that exists, and wait until it is on the disk."""
    manager = checkpoint.open_folder(folder, create=True)
    try:
        checkpoint.save(manager, dict(variables), metadata)
        checkpoint.finish(manager)
    finally:
        manager.close()

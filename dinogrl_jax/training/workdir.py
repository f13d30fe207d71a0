"""The folder of a run: config.json, checkpoints/, tensorboard/, pictures/, results.json."""

from collections.abc import Sequence
from pathlib import Path

import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax.config import FREE_ON_RESUME, differences, from_dict
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.training import checkpoint


def opened(folder: str, config: ConfigDict) -> tuple[Path, ocp.CheckpointManager]:
    """The folder, made if need be, and the manager of its checkpoints.

    Raises InputError where the folder belongs to a run of another configuration.
    """
    path = Path(folder).absolute()
    settings = path / "config.json"
    if settings.exists():
        check_same(config, from_dict(read_json(settings)), folder)
    elif path.exists() and any(not x.name.startswith(".config.json.") for x in path.iterdir()):
        # those are drafts, of a run that was killed while it wrote its first file
        raise InputError(f"{path} is not empty and holds no run: choose another --workdir")
    path.mkdir(parents=True, exist_ok=True)
    write_json(settings, config.to_dict())
    return path, checkpoint.open_folder(path / "checkpoints", create=True)


def check_same(
    config: ConfigDict, trained: ConfigDict, folder: str, free: Sequence[str] = FREE_ON_RESUME
) -> None:
    """Raise InputError if a run was trained with settings that differ where it matters."""
    changed = differences(trained, config, free)
    if changed:
        raise InputError(
            f"{folder} holds a run of another configuration ({'; '.join(changed[:5])}): "
            "choose another --workdir, or go back to its settings"
        )


def results(manager: ocp.CheckpointManager, protocol: str) -> dict:
    """The figures of the last checkpoint, and those of the best one under "best"."""
    found = {}
    for which in ("last", "best"):
        step = checkpoint.chosen_step(manager, which)
        metadata = checkpoint.saved_metadata(manager, step)
        found[which] = described(metadata.figures, protocol, which, step)
    return {**found["last"], "best": found["best"]}


def described(figures: dict, protocol: str, which: str, step: int) -> dict:
    """Figures with the protocol and the checkpoint they belong to."""
    return {**figures, "protocol": protocol, "checkpoint": which, "step": step}

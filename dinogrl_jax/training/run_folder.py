"""The folder of a run: config.json, checkpoints/, tensorboard/, pictures/, results.json."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax.config import FREE_ON_RESUME, differences, restored
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.training import checkpoint


def run_folder(folder: str | Path, config: ConfigDict) -> tuple[Path, ocp.CheckpointManager]:
    """The folder of a run, made if need be, and the manager of its checkpoints.

    Raises InputError where the folder belongs to a run of another configuration or layout.
    """
    path = Path(folder).absolute()
    settings = path / "config.json"
    if settings.exists():
        check_same(config, saved_config(path), folder)
    elif path.exists() and any(not x.name.startswith(".config.json.") for x in path.iterdir()):
        # those are drafts, of a run that was killed while it wrote its first file
        raise InputError(f"{path} is not empty and holds no run: choose another --workdir")
    path.mkdir(parents=True, exist_ok=True)
    about = {"layout": checkpoint.LAYOUT, "versions": checkpoint.versions()}
    write_json(settings, {**about, "config": config.to_dict()})
    return path, checkpoint.open_folder(path / "checkpoints", create=True)


def saved_config(folder: Path) -> ConfigDict:
    """The configuration of the run in a folder; InputError where it is of another layout."""
    content = read_json(folder / "config.json")
    if "layout" not in content:  # nor versions, which its checkpoints have
        content = _saved_metadata(folder) or content
    checkpoint.check_layout(content, folder)
    return restored(content["config"])


def _saved_metadata(folder: Path) -> Mapping[str, Any]:
    """What a checkpoint of the run says about itself, whatever its layout; {} where none does."""
    for file in (folder / "checkpoints").glob("[0-9]*/metadata/metadata"):
        with contextlib.suppress(InputError, KeyError, TypeError):
            return {**read_json(file)["content"], "layout": None}
    return {}


def check_same(
    config: ConfigDict,
    trained: ConfigDict,
    folder: str | Path,
    free: Sequence[str] = FREE_ON_RESUME,
) -> None:
    """Raise InputError if a run was trained with settings that differ where it matters."""
    changed = differences(trained, config, free)
    if changed:
        raise InputError(
            f"{folder} holds a run of another configuration ({'; '.join(changed[:5])}): "
            "choose another --workdir, or go back to its settings"
        )


def run_results(manager: ocp.CheckpointManager, protocol: str) -> dict:
    """The figures of the last checkpoint, and those of the best one under "best"."""
    found = {}
    for which in ("last", "best"):
        step = checkpoint.chosen_step(manager, which)
        figures = checkpoint.saved_metadata(manager, step).figures
        found[which] = {**figures, "protocol": protocol, "checkpoint": which, "step": step}
    return {**found["last"], "best": found["best"]}

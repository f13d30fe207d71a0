"""The folder of a run: config.json, checkpoints/, tensorboard/, pictures/, results.json.

And the state that a run goes on from: its last checkpoint's, or a fresh one.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax.config import FREE_ON_RESUME, differences, restored
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.start import starting_variables
from dinogrl_jax.training.state import Setup, State, initial_state, restored_state, state_shapes


def run_folder(folder: str | Path, config: ConfigDict) -> tuple[Path, ocp.CheckpointManager]:
    """The folder of a run, made if need be, and the manager of its checkpoints.

    Raises InputError where the folder belongs to a run of another configuration or layout.
    """
    path = Path(folder).absolute()
    settings = path / "config.json"
    if settings.exists():
        check_same(config, saved_config(path), folder, FREE_ON_RESUME)
    elif path.exists() and any(not x.name.startswith(".") for x in path.iterdir()):
        # hidden: a lock, and drafts of a run that was killed while it wrote its first file
        raise InputError(f"{path} is not empty and holds no run: choose another --workdir")
    path.mkdir(parents=True, exist_ok=True)
    about = {"layout": checkpoint.LAYOUT, "versions": checkpoint.versions()}
    write_json(settings, {**about, "config": config.to_dict()})
    return path, checkpoint.open_folder(path / "checkpoints", create=True)


def saved_config(folder: Path) -> ConfigDict:
    """The configuration of the run in a folder; InputError where it is of another layout."""
    content = read_json(folder / "config.json")
    if "layout" not in content:  # nor versions, which its checkpoints have
        for file in (folder / "checkpoints").glob("[0-9]*/metadata/metadata"):
            with contextlib.suppress(InputError, KeyError, TypeError):
                content = {**read_json(file)["content"], "layout": None}
                break
    checkpoint.check_layout(content, folder)
    return restored(content["config"])


def check_same(
    config: ConfigDict, trained: ConfigDict, folder: str | Path, free: Sequence[str]
) -> None:
    """Raise InputError if a run was trained with settings that differ where they are not free."""
    changed = differences(trained, config, free)
    if changed:
        raise InputError(
            f"{folder} holds a run of another configuration ({'; '.join(changed[:5])}): "
            "choose another --workdir, or go back to its settings"
        )


def state_to_train(
    setup: Setup, metadata: checkpoint.Metadata, manager: ocp.CheckpointManager
) -> tuple[State, checkpoint.Metadata]:
    """The state a run goes on from, on the mesh, and what is known of it.

    metadata: of a run that begins. A damaged checkpoint stops the run, or with
    `train.damaged_checkpoint` = "previous" is set aside if an earlier one is good.
    """
    method, model, config, mesh = setup
    policy = config.train.damaged_checkpoint
    goes_back = lookup({"stop": False, "previous": True}, policy, "train.damaged_checkpoint")
    steps, damaged = sorted(manager.all_steps(), reverse=True), []
    if not steps:
        data = metadata.facts, metadata.identities
        variables, lines = starting_variables(method, model, *data, config)
        print(*lines, sep="\n")
        return sharding.spread(initial_state(variables, method, config), mesh), metadata
    for step in steps:
        try:
            state, found = saved_state(setup, metadata, manager, step)
            break
        except checkpoint.DamagedCheckpoint as error:
            if not goes_back or step == steps[-1]:
                raise
            print(f"{error.reason}; going back")
            damaged.append(step)
    for other in damaged:
        checkpoint.set_aside(manager, other)
    print(f"continuing at step {step}")
    return state, found


def saved_state(
    setup: Setup, metadata: checkpoint.Metadata, manager: ocp.CheckpointManager, step: int
) -> tuple[State, checkpoint.Metadata]:
    """The state of a checkpoint, on the mesh; InputError where it is of other identities."""
    found = checkpoint.saved_metadata(manager, step)
    for name in ("identities", "cameras"):
        known, given = getattr(found, name), getattr(metadata, name)
        if known != given:
            raise InputError(
                f"{manager.directory}: trained on {len(known)} {name}, which are not the "
                f"{len(given)} of data.root: restore the data set, or choose another --workdir"
            )
    method, model, config, mesh = setup
    shapes = state_shapes(method, model, config)
    items = {"variables": shapes.variables, "training": shapes.training}
    items = checkpoint.restored(manager, step, **sharding.shapes(items, mesh))
    # Settings that may change between one start and the next are those of this one.
    return restored_state(**items, step=step, setup=setup), found._replace(config=config)


def run_results(manager: ocp.CheckpointManager, protocol: str) -> dict:
    """The figures of the last checkpoint, and those of the best one under "best"."""
    found = {}
    for which in ("last", "best"):
        step = checkpoint.chosen_step(manager, which)
        figures = checkpoint.saved_metadata(manager, step).figures
        found[which] = {**figures, "protocol": protocol, "checkpoint": which, "step": step}
    return {**found["last"], "best": found["best"]}

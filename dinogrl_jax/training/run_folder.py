"""The folder of a run: config.json, checkpoints/, tensorboard/, pictures/, results.json.

And the state that a run goes on from: its last checkpoint's, or a fresh one.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax.config import BY_CONTENT, FREE_ON_RESUME, differences, is_among, restored
from dinogrl_jax.devices import hosts, sharding
from dinogrl_jax.interface.checks import DECLARED, complete_config
from dinogrl_jax.interface.errors import InputError, errors_naming, lookup
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.interface.settings import leaves, value_at
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.start import starting_variables
from dinogrl_jax.training.state import Setup, State, initial_state, restored_state, state_shapes
from dinogrl_jax.training.stored import content_digest

# Settings by which figures are comparable with each other, and the best of them is chosen.
SCORING = (
    "data.discard_test",
    "data.test_frames",
    "evaluation.best",
    "evaluation.camera_filter",
    "evaluation.distance",
    "evaluation.protocol",
)

BEFORE = ("log.txt",)  # what a run may write before its config.json


def run_folder(folder: str | Path, config: ConfigDict) -> tuple[Path, ocp.CheckpointManager]:
    """The folder of a run, made if need be, and the manager of its checkpoints.

    Raises InputError as `write_run_folder`, on the first process, for which the others wait.
    """
    path = Path(folder).absolute()
    if hosts.first():
        write_run_folder(path, config)
    hosts.together("the run's folder")  # of one that is refused nobody writes anything
    return path, checkpoint.open_folder(path / "checkpoints", create=True)


def write_run_folder(path: Path, config: ConfigDict) -> None:
    """Make the folder of a run, or look whether a run continues in it, and write its settings.

    Without a checkpoint it is not yet a run, and takes any settings.

    Raises InputError where the folder belongs to a run of another configuration or layout, and for
    a file of starting weights that is not there.
    """
    settings, digests = path / "config.json", {}
    if settings.exists():
        trained, digests = saved_config(path), saved_digests(path)
        if has_checkpoint(path):
            same, other = compared_files(config, trained, digests)
            check_same(config, trained, path, (*FREE_ON_RESUME, *same), other)
    elif path.exists() and any(x.name not in BEFORE and x.name[0] != "." for x in path.iterdir()):
        # hidden: a lock, and drafts of a run that was killed while it wrote its first file
        raise InputError(f"{path} is not empty and holds no run: choose another --workdir")
    if not has_checkpoint(path):
        digests = {name: content_digest(file) for name, file in files_by_content(config).items()}
    path.mkdir(parents=True, exist_ok=True)
    about = {"layout": checkpoint.LAYOUT, "versions": checkpoint.versions(), "files": digests}
    write_json(settings, {**about, "config": config.to_dict()})


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has a step, a damaged one included; names of unfinished ones are longer."""
    return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def saved_config(folder: Path) -> ConfigDict:
    """The configuration of a run, complete; InputError where the folder is of another layout."""
    content = read_json(folder / "config.json")
    if not isinstance(content, dict):
        raise InputError(f"{folder}/config.json is no run's: choose another --workdir")
    if "layout" not in content:  # nor versions, which its checkpoints have
        for file in (folder / "checkpoints").glob("[0-9]*/metadata/metadata"):
            with contextlib.suppress(InputError, KeyError, TypeError):
                content = {**read_json(file)["content"], "layout": None}
                break
    checkpoint.check_layout(content, folder)
    if not isinstance(content.get("config"), dict):
        raise InputError(f"{folder}/config.json has lost its settings: restore it")
    with errors_naming(folder / "config.json"):
        config = restored(content["config"])
        return complete_config(config, DECLARED.get(config.get("method"), {}))


def saved_digests(folder: Path) -> dict[str, str]:
    """Of the files that decided the run by their content, by setting."""
    digests = read_json(folder / "config.json").get("files")
    return digests if isinstance(digests, dict) else {}


def files_by_content(config: ConfigDict) -> dict[str, str]:
    """The files that decide a training by what is in them, by setting."""
    return {name: path for name, path in leaves(config) if is_among(name, BY_CONTENT) and path}


def compared_files(
    config: ConfigDict, trained: ConfigDict, digests: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Settings whose files have the content of the run's, and a text on each that has another.

    Of a file that is no longer there the path counts, as of a model that may have trained on.
    """
    same, other, now = [], [], files_by_content(config)
    for name in files_by_content(trained).keys() & now.keys() & digests.keys():
        with contextlib.suppress(InputError):
            if content_digest(now[name]) == digests[name]:
                same.append(name)
            elif value_at(trained, name) == now[name] and Path(now[name]).is_file():
                other.append(f"{name}: the content of {now[name]} is another")
    return same, other


def check_same(
    config: ConfigDict,
    trained: ConfigDict,
    folder: str | Path,
    free: Sequence[str],
    other: Sequence[str] = (),
) -> None:
    """Raise InputError if a run was trained with settings that differ where they are not free.

    other: more in which it differs.
    """
    if trained.method != config.method:  # nothing else is worth a word then
        raise InputError(
            f"{folder} holds a run of method = {trained.method}, not of {config.method}: choose "
            "another --workdir, or that run's configuration"
        )
    if changed := [*differences(trained, config, free), *other]:
        raise InputError(
            f"{folder} holds a run of another configuration ({'; '.join(changed)}): "
            "choose another --workdir, or go back to its settings; free to change are "
            f"{', '.join(free)}"
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
    return restored_state(**items, step=step, setup=setup), continued_metadata(found, config)


def continued_metadata(found: checkpoint.Metadata, config: ConfigDict) -> checkpoint.Metadata:
    """What a checkpoint says, for a run with the settings of this start, which may differ.

    Where figures are of another kind now, none counts: says so.
    """
    changed = differences(found.config, config, free=())
    if scoring := [text for text in changed if is_among(text.partition(":")[0], SCORING)]:
        print(f"the best checkpoint is chosen anew: {'; '.join(scoring)}")
        found = found._replace(figures=None, best=None)
    return found._replace(config=config)


def run_results(manager: ocp.CheckpointManager, protocol: str) -> dict:
    """The figures of the last checkpoint, and those of the best one under "best"."""
    found = {}
    for which in ("last", "best"):
        step = checkpoint.chosen_step(manager, which)
        figures = checkpoint.saved_metadata(manager, step).figures
        found[which] = {**figures, "protocol": protocol, "checkpoint": which, "step": step}
    return {**found["last"], "best": found["best"]}

"""Checkpoints: a folder of steps, each with the model's variables and, of a run, its optimiser.

A step holds three items: `variables` (parameters and all other collections, what a user of the
model needs), `training` (what only training needs; absent in a converted model) and `metadata`
(settings, identities, cameras, figures, versions, the layout of all this, and a fingerprint of
every array). Orbax writes each step beside its place and renames it, so a step is whole or absent;
fingerprints show what a disk did to it later.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax import config
from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.checks import DECLARED, complete_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.training.fingerprints import fingerprints

PACKAGES = ("dinogrl_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
LAYOUT = 2  # of what a checkpoint and a run's folder hold; there is no migration from another
FIGURES = "figures.json"  # in a step's folder, once it has been evaluated
ASIDE = "damaged"  # begins the names of folders, beside the steps, that no run looks at again


class DamagedCheckpoint(InputError):
    """A step's files are not what was saved; `reason` says so without advice."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}: --config.train.damaged_checkpoint=previous continues from the one before"
        )
        self.reason = reason


class Metadata(NamedTuple):
    """What a checkpoint says about itself."""

    config: ConfigDict
    identities: list  # of the training set, in the order of the classifiers' rows
    cameras: list  # of the training set, in the order of a table's rows
    step: int = 0
    figures: dict | None = None  # of this step, as in results.json
    best: dict | None = None  # {"step", "score"} of the highest `evaluation.best` so far

    @property
    def facts(self) -> Facts:
        """What the training data told the model."""
        return Facts(len(self.identities), tuple(self.cameras))

    @property
    def is_best(self) -> bool:
        """Whether no step so far had a higher score."""
        return self.best is not None and self.best["step"] == self.step

    def scored(self, figures: dict, score: float) -> "Metadata":
        """With the figures of this step, which is the best if its score is the highest."""
        better = self.best is None or score > self.best["score"]
        best = {"step": self.step, "score": score} if better else self.best
        return self._replace(figures=figures, best=best)


def open_folder(folder: str | Path, create: bool = False) -> ocp.CheckpointManager:
    """The manager of a folder of checkpoints, without what interrupted writing left there.

    Raises InputError where there is no such folder, unless it is created.
    """
    folder = Path(folder).absolute()
    if not create and not folder.is_dir():
        raise InputError(f"{folder}: no such folder of checkpoints")
    _hush()
    finished = ocp.options.AsyncOptions(post_finalization_callback=lambda: _on_disk(folder))
    options = ocp.CheckpointManagerOptions(
        create=create, cleanup_tmp_directories=create, async_options=finished
    )
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ("variables", "training"):
        handler = ocp.StandardCheckpointHandler()
        registry.add(item, ocp.args.StandardSave, handler)
        registry.add(item, ocp.args.StandardRestore, handler)
    return ocp.CheckpointManager(folder, options=options, handler_registry=registry)


def checkpoints_of(folder: str | Path) -> ocp.CheckpointManager:
    """The manager of the checkpoints of a run or of a converted model; InputError without any."""
    inner = Path(folder) / "checkpoints"
    return open_folder(inner if inner.is_dir() else folder)


def _on_disk(folder: Path) -> None:
    """Return when all in a folder is on the disk, so that a power failure does not take it.

    Orbax leaves that to the system, which may have the name of a step there long before its files.
    """
    for at, _, names in os.walk(folder):  # which passes over what another process tidies up
        for path in (at, *(os.path.join(at, name) for name in names)):
            _synchronised(path)


def _synchronised(path: str) -> None:
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        # Tidied up by another process, or on a file system that does not know this.
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOTSUP):
            raise


def save(
    manager: ocp.CheckpointManager, variables: dict, metadata: Metadata, training: Any | None = None
) -> None:
    """Starts writing a step; `finish` waits for it. Beside it stay the step before and the best.

    Raises InputError where this or the last step cannot be written.
    """
    finish(manager)
    kept = {manager.latest_step(), metadata.best and metadata.best["step"]}
    items = {"variables": variables} | ({} if training is None else {"training": training})
    content = {
        **metadata._asdict(),
        "layout": LAYOUT,
        "config": metadata.config.to_dict(),
        "versions": versions(),
        "fingerprints": {name: fingerprints(tree) for name, tree in items.items()},
    }
    content = json.loads(json.dumps(content))  # as it is read again: its lists were tuples
    arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
    arguments["metadata"] = ocp.args.JsonSave({"content": content, "digest": digest(content)})
    with _errors_as(partial(_not_written, manager)):
        for step in set(manager.all_steps()) - kept:
            manager.delete(step)
        manager.save(metadata.step, args=ocp.args.Composite(**arguments), force=True)


def save_figures(manager: ocp.CheckpointManager, metadata: Metadata) -> None:
    """Writes the figures of a step, and which step is the best, beside what was saved of it."""
    finish(manager)
    if hosts.first():
        content = {"figures": metadata.figures, "best": metadata.best}
        path = Path(manager.directory) / str(metadata.step) / FIGURES
        write_json(path, {"content": content, "digest": digest(content)})
    hosts.together(f"figures of step {metadata.step}")  # which all read for the results


@contextlib.contextmanager
def whole(manager: ocp.CheckpointManager) -> Iterator[None]:
    """An error in the block waits until the checkpoint that is being written is whole."""
    try:
        yield
    except Exception:
        with contextlib.suppress(InputError):  # the first error is the one to hear of
            finish(manager)
        raise


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until the last step is written; InputError where it cannot be."""
    with _errors_as(partial(_not_written, manager)):
        manager.wait_until_finished()
        # The step's last name, before another step is deleted.
        _synchronised(str(manager.directory))


def write_checkpoint(folder: Path, variables: Mapping, metadata: Metadata) -> None:
    """Write a checkpoint into a folder that exists, and wait until it is on the disk."""
    with contextlib.closing(open_folder(folder, create=True)) as manager:
        save(manager, dict(variables), metadata)
        finish(manager)


def saved_metadata(manager: ocp.CheckpointManager, step: int) -> Metadata:
    """What the checkpoint of a step says about itself.

    Raises DamagedCheckpoint where that is not what was saved, InputError where it is of another
    layout.
    """
    content = content_of(manager, step)
    fields = {k: content[k] for k in Metadata._fields}
    figures = Path(manager.directory) / str(step) / FIGURES
    if figures.exists():
        fields |= _figures(manager, step, figures)
    stored = config.restored(fields["config"])
    fields["config"] = complete_config(stored, DECLARED.get(stored.get("method"), {}))
    return Metadata(**fields)


def _figures(manager: ocp.CheckpointManager, step: int, path: Path) -> dict:
    """The `figures` and `best` of a step's file."""
    with _errors_as(partial(_damaged, manager, step)):
        stored = read_json(path)
        content = stored["content"]
        if stored["digest"] != digest(content) or content.keys() != {"figures", "best"}:
            raise ValueError("its figures have changed")
    return content


def model_metadata(manager: ocp.CheckpointManager, which: str) -> Metadata:
    """The same of a whole model's checkpoint, by the names that `chosen_step` takes.

    Raises InputError where a checkpoint holds starting weights and no whole model.
    """
    metadata = saved_metadata(manager, chosen_step(manager, which))
    if not metadata.identities:
        names = ", ".join(name for name, path in metadata.config.pretrained.items() if path)
        raise InputError(f"{manager.directory} holds weights ({names}) and no whole model")
    return metadata


def stored_variables(method: ModuleType, manager: ocp.CheckpointManager, step: int) -> dict:
    """The variables of a whole model, of that method, in the memory of this machine."""
    metadata = saved_metadata(manager, step)
    shapes = variable_shapes(method.Model(metadata.config, metadata.facts), metadata.config)
    return jax.device_get(restored(manager, step, variables=shapes)["variables"])


def check_layout(content: Mapping[str, Any], place: str | Path) -> None:
    """Raise InputError if what a file says about itself, as JSON, is of another layout."""
    if content.get("layout") != LAYOUT:
        versions = content.get("versions") or {}
        names = {"dinogrl_jax": "dinogrl_jax", "git": "commit"}
        known = [f"{text} {versions[name]}" for name, text in names.items() if versions.get(name)]
        raise InputError(
            f"{place} was written by {', '.join(known) or 'an earlier version'} in another layout, "
            "which is not read: use the version that wrote it, or choose another folder"
        )


def restored(manager: ocp.CheckpointManager, step: int, **items: Any) -> dict[str, Any]:
    """The items `variables` and `training` of a step, shaped and placed as the given trees.

    The leaves given are arrays, or ShapeDtypeStructs with a sharding; devices may differ from
    those that saved.

    Raises DamagedCheckpoint where an array is not what was saved.
    """
    expected = content_of(manager, step)["fingerprints"]
    args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    with _errors_as(partial(_damaged, manager, step)):
        composite = manager.restore(step, args=ocp.args.Composite(**args))
    for name in items:
        found = fingerprints(composite[name])
        changed = [path for path, value in found.items() if expected[name].get(path) != value]
        if changed:
            count = f"{len(changed)} of {len(found)} arrays"
            raise _damaged(manager, step, f"{count} in {name} have changed, {changed[0]} first")
    return {name: composite[name] for name in items}


def chosen_step(manager: ocp.CheckpointManager, which: str) -> int:
    """The step that "last" or "best" means, or a number; without figures the last is the best."""
    last = manager.latest_step()
    if last is None:
        raise InputError(f"{manager.directory}: holds no checkpoint")
    if which == "best":
        best = saved_metadata(manager, last).best
        return best["step"] if best else last
    if which == "last":
        return last
    if which.isdecimal() and int(which) in manager.all_steps():
        return int(which)
    steps = ", ".join(str(step) for step in sorted(manager.all_steps()))
    raise InputError(f"{manager.directory}: no checkpoint {which!r}; there is best, last, {steps}")


def set_aside(manager: ocp.CheckpointManager, step: int) -> None:
    """Give a damaged step's folder another name, so that its number is free again."""
    folder = Path(manager.directory)
    if hosts.first():
        names = (folder / f"{ASIDE}-{step}{'+' * count}" for count in range(sys.maxsize))
        (folder / str(step)).rename(next(name for name in names if not name.exists()))
    hosts.together(f"set aside {step}")
    manager.reload()


def versions() -> dict[str, str]:
    """The versions of the packages that made a checkpoint, and of the code where git knows it."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return found | {"git": commit} if (commit := git_commit()) else found


@cache
def git_commit() -> str:
    """The last commit that changed this package, with a + if files have changed since.

    Empty where the package is in no repository, or git is not installed.
    """

    def git(*command: str) -> str:
        package = Path(__file__).parent.parent
        with contextlib.suppress(OSError):
            command = ["git", *command, "."]
            return subprocess.run(command, cwd=package, capture_output=True, text=True).stdout
        return ""

    commit = git("log", "-1", "--format=%H").strip()
    return f"{commit}+" if commit and git("status", "--porcelain") else commit


def digest(content: Any) -> str:
    """SHA-256 of what JSON can hold, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def content_of(manager: ocp.CheckpointManager, step: int) -> dict:
    """What a step says about itself, as JSON.

    Raises DamagedCheckpoint where that is not what was saved, InputError where it is of another
    layout or not there.
    """
    if step not in manager.all_steps():
        raise InputError(f"{manager.directory}: no checkpoint of step {step}")
    with _errors_as(partial(_damaged, manager, step)):
        stored = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
        content = stored.metadata["content"]
        if stored.metadata["digest"] != digest(content):
            raise ValueError("its metadata have changed")
    check_layout(content, f"{manager.directory}/{step}")
    return content


@contextlib.contextmanager
def _errors_as(refusal: Callable[[str], InputError]) -> Iterator[None]:
    """Whatever Orbax and TensorStore raise, as an InputError with their reason."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # more types than they document
        raise refusal(str(error).partition("\n")[0][:160] or repr(error)) from error


def _damaged(manager: ocp.CheckpointManager, step: int, reason: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"{manager.directory}/{step} is a damaged checkpoint ({reason})")


def _not_written(manager: ocp.CheckpointManager, reason: str) -> InputError:
    return InputError(
        f"{manager.directory}: a checkpoint cannot be written ({reason}): make room or allow "
        "writing there; the same command then continues from the last complete checkpoint"
    )


def _hush() -> None:
    """Leave out what tasks and threads of Orbax and TensorStore say beside an error."""

    def heard(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = heard
    warnings.filterwarnings("ignore", ".* was never awaited")
    logging.getLogger("asyncio").addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()

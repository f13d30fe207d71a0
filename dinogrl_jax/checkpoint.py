"""Checkpoints: a folder of steps, each with the model's variables and, of a run, its optimiser.

A step holds three items: `variables` (parameters and statistics, all that a user of the model
needs), `optimizer` (absent in a converted model) and `metadata` (settings, labels, figures,
versions). Orbax writes each step beside its place and renames it, so a step is whole or absent.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy

from dinogrl_jax.config import from_dict
from dinogrl_jax.errors import InputError

PACKAGES = ("dinogrl_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


class Metadata(NamedTuple):
    """What a checkpoint says about itself."""

    config: ConfigDict
    identities: list  # the training identities in the order of the classifiers' rows
    step: int
    figures: dict | None  # of the latest evaluation, as in results.json
    best: float | None  # the highest mean mAP so far


def open_folder(folder: str | Path, create: bool = False) -> ocp.CheckpointManager:
    """The manager of a folder of checkpoints; it keeps the last step and the one of highest score.

    Raises InputError where there is no such folder, unless it is created.
    """
    folder = Path(folder).absolute()
    if not create and not folder.is_dir():
        raise InputError(f"{folder}: no such folder of checkpoints")
    best = preservation_policy.BestN(
        get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
        create=create,
        preservation_policy=preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(1), best]
        ),
        best_fn=_score,
        best_mode="max",
    )
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ("variables", "optimizer"):
        handler = ocp.StandardCheckpointHandler()
        registry.add(item, ocp.args.StandardSave, handler)
        registry.add(item, ocp.args.StandardRestore, handler)
    return ocp.CheckpointManager(folder, options=options, handler_registry=registry)


def save(
    manager: ocp.CheckpointManager,
    variables: dict,
    metadata: Metadata,
    optimizer: Any | None = None,
    score: float | None = None,
) -> None:
    """Starts writing a step; `manager.wait_until_finished()` waits for it.

    score: the mean mAP by which the best step is chosen, None where nothing was evaluated.
    """
    described = {**metadata._asdict(), "config": metadata.config.to_dict(), "versions": versions()}
    items = {
        "variables": ocp.args.StandardSave(variables),
        "metadata": ocp.args.JsonSave(json.loads(json.dumps(described))),
    }
    if optimizer is not None:
        items["optimizer"] = ocp.args.StandardSave(optimizer)
    metrics = None if score is None else {"score": score}
    manager.save(metadata.step, args=ocp.args.Composite(**items), metrics=metrics, force=True)


def saved_metadata(manager: ocp.CheckpointManager, step: int) -> Metadata:
    """What the checkpoint of a step says about itself."""
    restored = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
    fields = {k: restored.metadata[k] for k in Metadata._fields}
    return Metadata(**{**fields, "config": from_dict(fields["config"])})


def restored(manager: ocp.CheckpointManager, step: int, **items: Any) -> dict[str, Any]:
    """The items `variables` and `optimizer` of a step, shaped and placed as the given trees.

    The leaves given are arrays, or ShapeDtypeStructs with a sharding; devices may differ from
    those that saved.
    """
    args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    composite = manager.restore(step, args=ocp.args.Composite(**args))
    return {name: composite[name] for name in items}


def chosen_step(manager: ocp.CheckpointManager, which: str) -> int:
    """The step that "last" or "best" means, or a number; without figures the last is the best."""
    step = manager.latest_step()
    if step is None:
        raise InputError(f"{manager.directory}: holds no checkpoint")
    if which == "best":
        best = manager.best_step()
        return step if best is None else best
    if which == "last":
        return step
    if which.isdigit() and int(which) in manager.all_steps():
        return int(which)
    steps = ", ".join(str(step) for step in sorted(manager.all_steps()))
    raise InputError(f"{manager.directory}: no checkpoint {which!r}; there is best, last, {steps}")


def versions() -> dict[str, str]:
    """The versions of the packages that made a checkpoint."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]

"""The file of descriptors that scripts/extract.py writes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.interface.errors import InputError


def columns(listed: Sequence[ListedTracklet]) -> dict[str, Shaped[np.ndarray, " n"]]:
    """identity, camera, modality, role and path of each tracklet.

    Identities are int64; if any has a name, all are text, and "" is unknown.
    """
    identities = [tracklet.identity for tracklet, _ in listed]
    if any(isinstance(identity, str) for identity in identities):
        identities = ["" if identity == -1 else str(identity) for identity in identities]
    return {
        "identity": np.array(identities),
        "camera": np.array([tracklet.camera for tracklet, _ in listed]),
        "modality": np.array([tracklet.modality for tracklet, _ in listed]),
        "role": np.array([tracklet.role for tracklet, _ in listed]),
        "path": np.array([path for _, path in listed]),
    }


def extraction_config(
    config: ConfigDict, tracklets: int, devices: int, batch: int | None, workers: int | None
) -> ConfigDict:
    """A model's configuration with the batch and the workers to embed some tracklets.

    The batch is no larger than there are tracklets, and a multiple of the devices.

    Raises InputError for a batch below 1 or workers below 0.
    """
    if (batch is not None and batch < 1) or (workers is not None and workers < 0):
        raise InputError("--batch has to be 1 or more, --workers 0 or more")
    config = config.copy_and_resolve_references()
    size = min(batch or config.evaluation.tracklets_per_batch, tracklets)
    config.evaluation.tracklets_per_batch = -(-size // devices) * devices
    if workers is not None:
        config.data.workers = workers
    elif tracklets <= size:  # one batch is made before a worker has started
        config.data.workers = 0
    return config


def check_writable(path: str) -> None:
    """Raise InputError where a file cannot be written: better before hours of work than after."""
    place = Path(path)
    if place.is_dir() or not os.access(place.absolute().parent, os.W_OK):
        raise InputError(f"{path}: cannot be written; its folder has to exist, and it is a file")


def write(path: str, /, **arrays: np.ndarray) -> None:
    """Write an .npz, which appears when it is complete and replaces an older one."""
    place = Path(path)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            np.savez(file, **arrays)
        draft.replace(place)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)

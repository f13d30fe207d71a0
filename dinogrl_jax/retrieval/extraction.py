"""What scripts/extract.py needs beside a model: its batch size, and the columns of its file."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.interface.errors import InputError


def tracklet_columns(listed: Sequence[ListedTracklet]) -> dict[str, Shaped[np.ndarray, " n"]]:
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

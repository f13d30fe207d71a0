"""The settings that every method has, once, with units and meanings; `configs/*.py` change values.

Those of a method are in its folder, `methods/<name>/settings.py`.
"""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

# What a resumed run may change: it alters neither the model nor the course of the training.
FREE_ON_RESUME = (
    "data.bad_frames",
    "data.root",
    "data.workers",
    "evaluation.tracklets_per_batch",
    "hosts.coordinator",
    "hosts.count",
    "hosts.index",
    "mesh.fsdp",
    "model.remat",
    "ops.forms",
    "train.checkpoint_every",
    "train.damaged_checkpoint",
    "train.epochs",
    "train.evaluate_every",
    "train.log_every",
    "train.pictures_every",
)
# What an evaluation may change beside: it decides how frames are taken and scored.
FREE_AT_EVALUATION = (
    *FREE_ON_RESUME,
    "data.discard_test",
    "data.minimum_frames",
    "data.test_frames",
    "evaluation.best",
    "evaluation.camera_filter",
    "evaluation.distance",
    "evaluation.protocol",
    "model.compute_dtype",
)


def shared() -> dict:
    """The sections that every method has; a method changes values and adds its own settings."""
    return {
        "method": "",  # a name in dinogrl_jax.methods.METHODS
        "seed": 0,  # of initial weights, batches, augmentation and dropout
        "data": data(),
        "model": {
            "compute_dtype": "float32",  # "bfloat16" keeps parameters and statistics in float32
            "remat": "blocks",  # the backward pass computes again, for less memory, all inside of
            # blocks; "elementwise" keeps results of products and convolutions, "nothing" keeps all
        },
        "optimizer": optimizer(),
        "train": train(),
        "mesh": mesh(),
        "hosts": hosts(),
        "evaluation": evaluation(),
        "ops": {
            "forms": "fast",  # of operations: "plain" has their definitions alone, see ops/forms.py
        },
        "pretrained": {  # PyTorch files to start from; empty starts from random weights
            "model": "",  # or a run or converted model, whose weights count where they fit
        },
    }


def data() -> dict:
    return {
        "dataset": "vcm",  # "vcm", "bupt", "manifest", "synthetic" (generated, in vcm's layout)
        "root": "",  # folder of the data set, raw or prepared; of "manifest" the file
        "height": 256,  # pixels, of a frame as the network sees it
        "width": 128,
        "frames": 6,  # per tracklet
        "minimum_frames": 12,  # shorter tracklets are left out, as every published result does
        "discard_train": "",  # file of frame paths to leave out (DinoGRL's own lists are private)
        "discard_test": "",
        "auxiliary": False,  # bupt: train on the identities seen by a single camera as well
        "fake_infrared": False,  # bupt: add the infrared pictures made from the visible ones
        "batch_rule": "identity",  # or "camera-pairs": aligned pairs of distinct cameras
        "identities_per_batch": 4,
        "tracklets_per_identity": 4,  # of each modality: 4 visible and 4 infrared
        "training_frames": "random-per-chunk",  # or "sorted-random"
        "test_frames": "first-per-chunk",  # or "uniform", "dense" (all, the mean descriptor)
        "bad_frames": "stop",  # in training; or "neighbour", which stands in and is counted
        "workers": 2,  # loader processes; 0 loads in threads of the training process
        "synthetic": {  # what the generator makes where the root does not exist yet
            "seed": 0,
            "train_identities": 80,
            "test_identities": 30,
            "tracklets_per_identity": 6,  # of each modality
            "frames_per_tracklet": 12,
            "height": 96,  # pixels
            "width": 48,
        },
    }


def optimizer() -> dict:
    return {
        "clip_norm": 0.0,  # longest gradient, over all parameters; 0 clips nothing
        "average": 0.0,  # decay a step of a moving average of the parameters, which evaluation then
        # uses (0.999, say); 0 averages nothing
        "micro_batches": 1,  # of a batch, one after the other: each has all identities, and
        # statistics and triplets of its own; divides data.tracklets_per_identity
    }


def train() -> dict:
    return {
        "epochs": 120,
        "steps_per_epoch": 200,
        "log_every": 10,  # steps between progress lines and scalars
        "pictures_every": 10,  # epochs between sample pictures; 0 writes none
        "evaluate_every": 2,  # epochs
        "checkpoint_every": 2,  # epochs
        "damaged_checkpoint": "stop",  # at one to continue from; or "previous" goes back one
        "not_finite": "stop",  # at a loss or gradient that is not finite; or "skip" the batch
    }


def mesh() -> dict:
    return {
        "fsdp": 1,  # devices that share one copy of parameters and optimiser; 1: each has its own
    }


def hosts() -> dict:
    return {
        "coordinator": "auto",  # "auto": as SLURM, Open MPI or a TPU pod says; "": one process;
        # or host:port of the process with index 0, which every process is told
        "count": 1,  # processes, where the coordinator is given
        "index": 0,  # of this process
    }


def evaluation() -> dict:
    return {
        "protocol": "vcm",  # or "bupt-full", "bupt-official-drop64": see protocols.PROTOCOLS
        "camera_filter": "protocol",  # "on" ignores the query's identity and camera; "off"
        "tracklets_per_batch": 16,
        "distance": "part_euclidean",  # see retrieval.distances.FORMULAS
        "best": "mean.mAP",  # which figure the best checkpoint has: direction.figure, or of both
        # directions' mean; visible_to_infrared.rank1, infrared_to_visible.mAP, …
    }


def merged(settings: Mapping, changes: Mapping) -> dict:
    """Settings with changes and additions, section by section."""
    both = dict(settings)
    for key, value in changes.items():
        section = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if section else value
    return both


def restored(settings: Mapping) -> ConfigDict:
    """A configuration that was stored as JSON: lists are tuples again."""

    def value(stored):
        if isinstance(stored, Mapping):
            return {key: value(one) for key, one in stored.items()}
        return tuple(stored) if isinstance(stored, list) else stored

    return ConfigDict(value(settings))


def differences(
    old: ConfigDict, new: ConfigDict, free: Sequence[str] = FREE_ON_RESUME
) -> list[str]:
    """The settings, less the free ones, in which two configurations differ: `key: old → new`."""
    flat = [dict(_leaves(config)) for config in (old, new)]
    keys = sorted(flat[0].keys() | flat[1].keys())
    pairs = ((key, flat[0].get(key), flat[1].get(key)) for key in keys)
    return [f"{key}: {a} → {b}" for key, a, b in pairs if a != b and key not in free]


def _leaves(config: ConfigDict, prefix: str = ""):
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

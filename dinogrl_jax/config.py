"""Every setting, once, with its unit and meaning. `configs/*.py` only change values."""

from collections.abc import Sequence

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
    "train.checkpoint_every",
    "train.damaged_checkpoint",
    "train.epochs",
    "train.evaluate_every",
    "train.log_every",
    "train.pictures_every",
    "train.recompute",
)
# What an evaluation may change beside: it decides how frames are taken and scored.
FREE_AT_EVALUATION = (
    *FREE_ON_RESUME,
    "data.discard_test",
    "data.minimum_frames",
    "data.test_frames",
    "evaluation.camera_filter",
    "evaluation.protocol",
    "model.compute_dtype",
)


def default() -> ConfigDict:
    """The settings of DinoGRL on HITSZ-VCM (arXiv 2511.04281), as published."""
    return ConfigDict(
        {
            "method": "dinogrl",  # a name in dinogrl_jax.methods.METHODS
            "seed": 0,  # of initial weights, batches, augmentation and dropout
            "data": data(),
            "augment": augment(),
            "model": model(),
            "loss": loss(),
            "optimizer": optimizer(),
            "train": train(),
            "mesh": mesh(),
            "hosts": hosts(),
            "evaluation": evaluation(),
            "pretrained": pretrained(),
        }
    )


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


def augment() -> dict:
    return {
        "pad": 10,  # pixels of zeros on each side before the random crop
        "flip": 0.5,  # probability of a horizontal flip
        "erase": 0.5,  # probability of random erasing
        "channels": True,  # visible: one channel for all; infrared: one channel, grey or unchanged
        "clip_consistent": False,  # one draw of crop, flip and erasing for all frames of a clip
    }


def model() -> dict:
    return {
        "streams": ("gait", "appearance"),  # ("appearance",) is the appearance-only ablation
        "pbmge": True,  # part-wise mutual enhancement of the two streams; needs both
        "parts": (1, 2, 4, 8, 16),  # horizontal bands of the pyramid
        "embedding": 256,  # channels of a part's embedding
        "resnet": {
            "stages": (3, 4, 6, 3),  # bottleneck blocks of each stage
            "width": 64,  # channels of the stem; the last stage has 32 times as many
        },
        "dinov2": {
            "height": 448,  # pixels, what a frame is resized to
            "width": 224,
            "patch": 14,  # pixels
            "grid": 37,  # side of the square positional grid in the weights
            "embedding": 384,
            "depth": 12,
            "heads": 6,
            "mlp_ratio": 4.0,
            "mlp": "gelu",  # "gelu", or "swiglu" (ViT-g)
            "registers": 0,
            "antialias": False,  # of the positional grid's resampling; the register models use True
            "offset": 0.1,  # added to the grid's size in the scale factor; register models use 0.0
            "taps": (2, 5, 8, 11),  # blocks whose tokens make up mid4
        },
        "sasgl": {
            "map_channels": 16,  # of the denoising and of the appearance map
            "hidden": 768,  # of the denoising branch
            "pre_channels": 64,  # of the blocks in front of the gait network
            "mask_dropout": 0.5,  # on the mask branch's input
            "zeroed_tracklets": 0.2,  # share of tracklets that lose one of the two maps in training
        },
        "compute_dtype": "float32",  # "bfloat16" keeps parameters and statistics in float32
    }


def loss() -> dict:
    return {
        "shape_connect": 0.02,  # weights of the gait stream's own terms
        "mask_mse": 1.0,
        "part_connect": 0.01,
        "part_diversity": 5.0,
        "shape_connect_transposed": False,  # True smooths each class's map, not the mixed layout
        "identity_scale": 16.0,  # of the cosine logits
        "label_smoothing": 0.1,
        "triplet_margin": 0.2,
    }


def optimizer() -> dict:
    return {
        "learning_rate": 3.5e-4,
        "weight_decay": 5e-4,  # added to the gradient, not decoupled
        "warmup_epochs": 10,
        "warmup_factor": 0.01,
        "decay_epochs": (40, 70),
        "decay_factor": 0.1,
        "clip_norm": 0.0,  # longest gradient, over all parameters; 0 clips nothing, as published
        "average": 0.0,  # decay a step of a moving average of the parameters, which evaluation then
        # uses (0.999, say); 0 averages nothing, as published
        "parts": 1,  # of a batch, one after the other: each has all identities, and statistics,
        # triplets and zeroed maps of its own; divides data.tracklets_per_identity
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
        "recompute": "blocks",  # in the backward pass, for less memory: all inside of blocks;
        # "elementwise" keeps results of products and convolutions, "nothing" keeps all
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
        "max_rank": 20,
    }


def pretrained() -> dict:
    return {  # PyTorch files to start from; empty starts from random weights
        "model": "",  # or a run or converted model, whose weights count where they fit
        "dinov2": "",
        "resnet50": "",
        "mask_branch": "",
    }


def from_dict(settings: dict) -> ConfigDict:
    """A configuration that was stored as JSON; lists are tuples again.

    A setting that was not there yet has its default, which changes nothing of before.
    """

    def restored(value, known):
        if isinstance(value, dict):
            known = known if isinstance(known, dict) else {}
            return {**known, **{key: restored(v, known.get(key)) for key, v in value.items()}}
        return tuple(value) if isinstance(value, list) else value

    return ConfigDict(restored(settings, default().to_dict()))


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

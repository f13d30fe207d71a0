"""The settings that every method has, once, with units, meanings and ranges.

`configs/*.py` change values. Those of a method are in its folder, `methods/<name>/settings.py`.
"""

from collections.abc import Sequence
from fnmatch import fnmatch

from ml_collections import ConfigDict

from dinogrl_jax.interface.config_files import restored  # noqa: F401
from dinogrl_jax.interface.settings import (
    COUNT,
    NUMBER,
    PATH,
    PIXELS,
    RISING,
    SHARE,
    Setting,
    at_least,
    below,
    below_setting,
    between,
    default_values,
    divides,
    each,
    leaves,
    matches,
    name_in,
    named_strength,
    names_in,
    one_of,
)

# What a resumed run may change: it does not alter the course of the training.
FREE_ON_RESUME = (
    "data.bad_frames",
    "data.discard_test",
    "data.root",
    "data.test_frames",
    "data.workers",
    "evaluation.*",
    "hosts.*",
    "mesh.*",
    "model.remat",
    "ops.*",
    "train.checkpoint_every",
    "train.damaged_checkpoint",
    "train.epochs",
    "train.evaluate_every",
    "train.log_every",
    "train.not_finite",
    "train.pictures_every",
)
# What an evaluation may change beside: all that does not make the model another one.
FREE_AT_EVALUATION = (
    "augment.*",
    "data.*",
    "evaluation.*",
    "hosts.*",
    "loss.*",
    "mesh.*",
    "model.compute_dtype",
    "model.remat",
    "ops.*",
    "optimizer.*",
    "pretrained.*",
    "seed",
    "train.*",
)
# Files that decide a training by what is in them, wherever they lie.
BY_CONTENT = ("data.discard_train", "pretrained.*")

SYNTHETIC = {  # what the generator makes where the root does not exist yet
    "seed": Setting(0, "of everything that is drawn", between(0, 2**32 - 1)),
    "train_identities": Setting(80, "people to train on", between(1, 9998)),
    "test_identities": Setting(30, "people to test on", between(1, 9998)),
    "tracklets_per_identity": Setting(6, "of each modality", between(2, 9999)),
    "frames_per_tracklet": Setting(12, "at least; at most half as many more", COUNT),
    "height": Setting(96, "pixels, of a frame on disk", between(16, 8192)),
    "width": Setting(48, "pixels", between(8, 8192)),
}
DATA = {
    "dataset": Setting("vcm", "layout of the data set", name_in("data.datasets.DATASETS")),
    "root": Setting("", "folder of the data set, raw or prepared; of a manifest the file", PATH),
    "height": Setting(256, "pixels, of a frame as the network sees it", PIXELS),
    "width": Setting(128, "pixels", PIXELS),
    "frames": Setting(6, "per tracklet", between(1, 10_000)),
    "minimum_frames": Setting(
        12, "shorter tracklets are left out, as every published result does", NUMBER
    ),
    "discard_train": Setting(
        "", "file of frame paths to leave out (DinoGRL's own lists are private)", PATH
    ),
    "discard_test": Setting("", "the same of the test set", PATH),
    "auxiliary": Setting(False, "bupt: train on the identities seen by a single camera as well"),
    "fake_infrared": Setting(False, "bupt: add the infrared pictures made from the visible ones"),
    "batch_rule": Setting(
        "identity",
        "tracklets of an identity, drawn for each step; the same of a list that is drawn once and "
        "comes round and round; or aligned pairs of distinct cameras",
        name_in("data.pipeline.BATCH_RULES"),
    ),
    "identities_per_batch": Setting(4, "distinct ones", COUNT),
    "tracklets_per_identity": Setting(4, "of each modality: 4 visible and 4 infrared", COUNT),
    "training_frames": Setting(
        "random-per-chunk",
        "which frames of a tracklet a batch has",
        name_in("data.sampling.TRAINING_FRAMES"),
    ),
    "test_frames": Setting(
        "first-per-chunk",
        "the same in a test; dense takes all, for the mean descriptor",
        name_in("data.sampling.TEST_CLIPS"),
    ),
    "bad_frames": Setting(
        "stop",
        "in training, at one that cannot be read; a neighbour stands in and is counted",
        one_of("stop", "neighbour"),
    ),
    "exif_rotation": Setting(False, "turn frames as their EXIF orientation says, as viewers do"),
    "deep_range": Setting(
        (),
        "of frames deeper than 8 bits a channel, thermal ones: the values that become 0 and 255, "
        "linear between and cut off beyond, as (28000, 32000); empty refuses such frames",
        RISING,
    ),
    "workers": Setting(
        2, "loader processes; 0 loads in threads of the training process", between(0, 1024)
    ),
    "synthetic": SYNTHETIC,
}
MODEL = {
    "compute_dtype": Setting(
        "float32",
        "bfloat16 keeps parameters and statistics in float32; float64 needs JAX_ENABLE_X64=1",
        one_of("float32", "bfloat16", "float64"),
    ),
    "remat": Setting(
        "blocks",
        "what the backward pass computes again, for less memory: all inside of blocks; what costs "
        "no product or convolution; nothing",
        name_in("ops.remat.POLICIES"),
    ),
}
OPTIMIZER = {
    "clip_norm": Setting(0.0, "longest gradient, over all parameters; 0 clips nothing", NUMBER),
    "average": Setting(
        0.0,
        "decay a step of a moving average of the parameters, which evaluation then uses (0.999, "
        "say); 0 averages nothing",
        at_least(0),
        below(1),
    ),
    "micro_batches": Setting(
        1,
        "of a batch, one after the other: each has all identities, and statistics and triplets of "
        "its own",
        COUNT,
        divides("data.tracklets_per_identity"),
    ),
}
TRAIN = {
    "epochs": Setting(120, "of steps_per_epoch batches", NUMBER),
    "steps_per_epoch": Setting(200, "batches of an epoch", COUNT),
    "log_every": Setting(10, "steps between progress lines and scalars", COUNT),
    "pictures_every": Setting(10, "epochs between sample pictures; 0 writes none", NUMBER),
    "evaluate_every": Setting(2, "epochs; 0 evaluates at the end alone", NUMBER),
    "checkpoint_every": Setting(2, "epochs; 0 saves with evaluations alone", NUMBER),
    "damaged_checkpoint": Setting(
        "stop", "at one to continue from; or go back one", one_of("stop", "previous")
    ),
    "not_finite": Setting(
        "stop", "at a loss or gradient that is not finite; or leave it out", one_of("stop", "skip")
    ),
}
HOSTS = {
    "coordinator": Setting(
        "auto",
        "auto: as SLURM, Open MPI or a TPU pod says; empty: one process; or host:port of the "
        "process with index 0, which every process is told",
        matches(r"(auto|\S+:\d{1,5})?", "be auto, empty or host:port"),
    ),
    "count": Setting(1, "processes, where the coordinator is given", COUNT),
    "index": Setting(0, "of this process", at_least(0), below_setting("hosts.count")),
}
EVALUATION = {
    "protocol": Setting(
        "vcm",
        "who queries whom: see retrieval/protocols.py",
        name_in("retrieval.protocols.PROTOCOLS"),
    ),
    "camera_filter": Setting(
        "protocol",
        "on ignores gallery tracklets of the query's identity and camera",
        name_in("retrieval.protocols.CAMERA_FILTERS"),
    ),
    "tracklets_per_batch": Setting(16, "a multiple of the devices is taken", between(1, 65_536)),
    "distance": Setting(
        "part_euclidean", "of descriptors", name_in("retrieval.distances.FORMULAS")
    ),
    "best": Setting(
        "mean.mAP",
        "which figure the best checkpoint has, in one direction or in the mean of both",
        matches(
            r"(mean|visible_to_infrared|infrared_to_visible)\.(rank(1|5|10|20)|mAP|mINP)",
            "be mean, visible_to_infrared or infrared_to_visible, a dot, and rank1, rank5, rank10, "
            "rank20, mAP or mINP",
        ),
    ),
}
SETTINGS = {
    "method": Setting("", "whose model and loss", name_in("methods.METHODS")),
    "seed": Setting(
        0, "of initial weights, batches, augmentation and dropout", between(0, 2**32 - 1)
    ),
    "data": DATA,
    "model": MODEL,
    "optimizer": OPTIMIZER,
    "train": TRAIN,
    "mesh": {
        "fsdp": Setting(
            1, "devices that share one copy of parameters and optimiser; 1: each has its own", COUNT
        ),
    },
    "hosts": HOSTS,
    "evaluation": EVALUATION,
    "ops": {
        "forms": Setting(
            "fast",
            "of operations: plain has their definitions alone, see ops/forms.py",
            names_in("ops.forms.OPERATIONS", "fast", "plain"),
        ),
    },
    "pretrained": {
        "model": Setting(
            "",
            "run, converted model or step of one to start from; its weights count where they fit",
            PATH,
        ),
    },
}
# Settings that a method has if it wants to, by the same names: it gives their values alone.
KNOWN = {
    "augment": {
        "pad": Setting(0, "pixels of zeros on each side before the random crop", between(0, 8192)),
        "flip": Setting(0.0, "probability of a horizontal flip", SHARE),
        "erase": Setting(0.0, "probability of random erasing", SHARE),
        "erase_rule": Setting(
            "rectangle",
            "what is erased: a rectangle, by a constant; or a block of one random colour, as far "
            "from the corner as it is large",
            name_in("data.transforms.ERASE_RULES"),
        ),
        "flip_clip": Setting(False, "one draw of the flip for all frames of a clip"),
        "channels": Setting(
            False, "visible: one channel for all; infrared: one channel, grey or unchanged"
        ),
        "clip_consistent": Setting(
            False, "one draw for all frames of a clip, of all but the channels"
        ),
        "also": Setting(
            (),
            "further ones and how strong each is, 0 to 1: ('brightness 0.3', 'blur 0.5')",
            each(named_strength("data.augmentations.AUGMENTATIONS")),
        ),
    },
    "evaluation": {
        "descriptor": Setting("", "which features are ranked, of those that a method has"),
        "unknown_camera": Setting("", "what stands for a camera that was not trained with"),
    },
    "loss": {
        "label_smoothing": Setting(0.0, "share of the label that all identities share", SHARE),
        "triplet_margin": Setting(0.0, "of distances", NUMBER),
    },
    "optimizer": {
        "learning_rate": Setting(0.0, "the highest", NUMBER),
        "weight_decay": Setting(0.0, "of all trained parameters", NUMBER),
        "warmup_epochs": Setting(0, "in which the learning rate grows, linearly", NUMBER),
        "warmup_factor": Setting(1.0, "of the learning rate, at step 0", NUMBER),
        "decay_epochs": Setting((), "from each of which on the rate is lower", each(NUMBER)),
        "decay_factor": Setting(1.0, "of the learning rate, from each of them on", NUMBER),
        "cosine_epochs": Setting(
            1, "of a fall along half a cosine, whatever train.epochs is; then the floor", COUNT
        ),
        "floor_factor": Setting(
            0.0, "of the learning rate: the lowest one, where a warm-up begins", SHARE
        ),
    },
}


def shared() -> dict:
    """The values of the settings that every method has; a method changes them and adds its own."""
    return default_values(SETTINGS)


def differences(
    old: ConfigDict, new: ConfigDict, free: Sequence[str] = FREE_ON_RESUME
) -> list[str]:
    """The settings, less the free ones, in which two configurations differ: `key: old → new`.

    free: names, or patterns of them like "evaluation.*".
    """
    flats = [dict(leaves(config)) for config in (old, new)]
    names = sorted(flats[0].keys() | flats[1].keys())
    pairs = ((name, flats[0].get(name), flats[1].get(name)) for name in names)
    return [f"{name}: {a} → {b}" for name, a, b in pairs if a != b and not is_among(name, free)]


def is_among(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)

"""The settings of X-ReID on HITSZ-VCM (arXiv 2511.17964), as its released code has them."""

from ml_collections import ConfigDict

from dinogrl_jax.interface.settings import (
    COUNT,
    NUMBER,
    PATH,
    SHARE,
    Range,
    Setting,
    between,
    name_with_value,
    one_of,
)
from dinogrl_jax.methods.xreid.cameras import UNKNOWN
from dinogrl_jax.methods.xreid.model import DESCRIPTORS
from dinogrl_jax.methods.xreid.sii import BORDERS, SHIFTS
from dinogrl_jax.models.clip import clip_settings


def settings() -> dict:
    """The sections that the method has for itself, with units, meanings and ranges."""
    return {
        "seed": 1234,
        "data": data(),
        "augment": augment(),
        "model": model(),
        "loss": loss(),
        "optimizer": optimizer(),
        "train": {"epochs": 30, "steps_per_epoch": 300, "evaluate_every": 2},
        "evaluation": {
            "tracklets_per_batch": 128,
            "distance": "cosine",
            "descriptor": Setting(
                "V0",
                "features that are ranked together: V0 class token, projection and interactions; "
                "V1 class token; V2 class token and interactions; V3 interactions",
                one_of(*DESCRIPTORS),
                HAS_INTERACTIONS,
            ),
            "unknown_camera": Setting(
                "refuse",
                "what stands for a camera that was not trained with: nothing may, the mean of all, "
                "or none",
                one_of(*UNKNOWN),
            ),
        },
        "pretrained": {
            "clip": Setting(
                "",
                "CLIP's PyTorch file to start from, or what dinogrl_jax convert made of it; empty: "
                "random",
                PATH,
            ),
        },
    }


def set_as_in_the_paper(config: ConfigDict) -> None:
    """Change a configuration of the released code to what the paper has instead.

    What it leaves open stays as released; settings of `model.lii`, `model.cii` and `model.fusion`
    say what that is. It mentions no cameras and no losses of frames.
    """
    config.augment.pad = 10  # "random crop"; the number is in the released settings, unused
    model = config.model
    model.cameras.weight = 0.0
    model.sii.depth, model.lii.on, model.cii.on = 1, True, True
    model.prototypes.update({"feature": "projected", "against": "batch", "temperature": 1.0})
    model.prototypes.update({"kept": 0.2, "update": "other", "start": "once"})
    config.loss.update({"identity": 1.0, "frames": 0.0})
    config.optimizer.decay_epochs = (30, 50)
    config.train.epochs = 60


def data() -> dict:
    return {
        "height": 288,
        "width": 144,
        "frames": 10,
        "batch_rule": "fixed-identity",
        "identities_per_batch": 4,
        "tracklets_per_identity": 2,
        "training_frames": "random-per-chunk",
        "test_frames": "first-per-chunk",
    }


def augment() -> dict:
    return {
        "pad": 0,
        "flip": 0.5,
        "flip_clip": True,
        "erase": 0.5,
        "erase_rule": "block-at-own-size",
        "also": (),
    }


def model() -> dict:
    return {
        "clip": clip_settings(),
        "cameras": {
            "weight": Setting(1.0, "of a camera's vector; 0: no cameras", NUMBER),
            "first": Setting(
                1, "number of the camera in the first row of a released file's table", NUMBER
            ),
        },
        "sii": {
            "on": Setting(True, "interactions of frames; False is an ablation"),
            "depth": Setting(2, "cross-attentions; the paper has 1", between(1, 100)),
            "shift": Setting(
                "clean",
                "of channels between frames: clean as the paper has it, cascade as the released "
                "code does on one thread",
                one_of(*SHIFTS),
                QUARTERS,
            ),
            "detach": Setting(True, "no interaction's losses train the image tower"),
        },
        "lii": {
            "on": Setting(False, "long-term interactions, as in the paper"),
            "stride": Setting(
                2, "frames from the one whose class token asks to its patches", COUNT
            ),
            "border": Setting(
                "cyclic",
                "who asks at the start of a tracklet, which the paper leaves open: frames at its "
                "end, as in code that is released and not called, or its first frame",
                one_of(*BORDERS),
            ),
            "on_shifted": Setting(False, "patches are those of sii, as that code would have it"),
        },
        "fusion": Setting(
            "mean", "of both interactions, which the paper writes both ways", one_of("mean", "sum")
        ),
        "cii": {
            "on": Setting(
                False, "cross-modal interactions in training, as in the paper", HAS_FRAMES
            ),
            "shared": Setting(True, "one block for both directions, which the paper leaves open"),
            "detach": Setting(
                False, "the constraint does not train what asks, which the paper leaves open"
            ),
        },
        "prototypes": prototypes(),
    }


def prototypes() -> dict:
    return {
        "on": Setting(True, "prototypes and their contrast; False is an ablation"),
        "feature": Setting(
            "both",
            "that is compared: class token and projection, or as in the paper the projection alone",
            one_of("both", "projected"),
        ),
        "against": Setting(
            "all",
            "prototypes a tracklet is compared with: of all identities, or as in the paper those "
            "of the batch",
            one_of("all", "batch"),
        ),
        "temperature": Setting(0.05, "of the cosines with prototypes", between(0.001, 1000)),
        "kept": Setting(0.1, "share of a prototype that a step keeps; the paper has 0.2", SHARE),
        "update": Setting(
            "both",
            "in which modality a prototype's hardest tracklet is: both, or the other one as in the "
            "paper",
            one_of("both", "other"),
        ),
        "start": Setting(
            "each_epoch",
            "when all are made anew: before each epoch, or once before the first as in the paper",
            one_of("each_epoch", "once"),
        ),
        "statistics": Setting(
            "published",
            "of norms in that pass: the batch's, the running ones, or as published the batch's in "
            "the first epoch and in every second one",
            one_of("published", "batch", "running"),
        ),
        "cameras": Setting(False, "whether that pass knows the cameras"),
        "tracklets": Setting(128, "in a batch of that pass", COUNT),
    }


def loss() -> dict:
    return {
        "identity": Setting(0.25, "weight of the cross-entropies of tracklets", NUMBER),
        "frames": Setting(
            1.0, "weight of the cross-entropies of frames, divided by data.frames", NUMBER
        ),
        "triplet": Setting(1.0, "weight of the triplets", NUMBER),
        "triplet_margin": 0.3,
        "constraint": Setting(1.0, "weight of the cross-modal constraint", NUMBER),
        "contrast": Setting(1.0, "weight of the contrast with each modality's prototypes", NUMBER),
    }


def optimizer() -> dict:
    return {
        "learning_rate": 5e-6,
        "weight_decay": 1e-4,  # in the gradient
        "bias_multiplier": Setting(2.0, "of the rate of biases", NUMBER),
        "classifier_multiplier": Setting(10.0, "of the rate of classifiers", NUMBER),
        "interaction_multiplier": Setting(
            10.0, "of the rate of the interactions, their norms and their classifier", NUMBER
        ),
        "warmup_epochs": 10,
        "warmup_factor": 0.1,
        "decay_epochs": (30, 50, 70),
        "decay_factor": 0.1,
    }


HAS_INTERACTIONS = Range(
    lambda name, config: config.model.sii.on or config.model.lii.on or name != "V3",
    lambda config: f"be another one where {name_with_value('model.sii.on', config)}",
    relates=True,
)
HAS_FRAMES = Range(
    lambda on, config: not on or config.model.sii.on or config.model.lii.on,
    lambda config: f"be False where {name_with_value('model.sii.on', config)}, and lii as well",
    relates=True,
)
QUARTERS = Range(
    lambda _, config: not config.model.sii.on or config.model.clip.width % 4 == 0,
    lambda config: (
        f"have quarters of the channels, and {name_with_value('model.clip.width', config)} has none"
    ),
    relates=True,
)

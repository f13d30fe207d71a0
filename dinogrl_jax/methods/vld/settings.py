"""The settings of VLD on HITSZ-VCM (arXiv 2506.02439), as published."""

from dinogrl_jax.interface.settings import (
    COUNT,
    NOT_EMPTY,
    NUMBER,
    PATH,
    Range,
    Setting,
    between,
    each,
    name_with_value,
)
from dinogrl_jax.models.clip import clip_settings, text_settings

# "A X X X X person observed in both day and night conditions." between CLIP's marks of a text's
# start and end, in the ids of its vocabulary.
SENTENCE = (
    (49406, 320, 343, 343, 343, 343, 2533, 21267)
    + (530, 2212, 575, 537, 930, 5892, 269, 49407)
)  # fmt: skip


def settings() -> dict:
    """The sections that the method has for itself, with units, meanings and ranges."""
    return {
        "seed": 1,
        "data": data(),
        "augment": augment(),
        "model": model(),
        "loss": loss(),
        "optimizer": optimizer(),
        "train": {"epochs": 24, "steps_per_epoch": 200, "evaluate_every": 2},
        "evaluation": {
            "tracklets_per_batch": 32,
            "distance": "dot",
            "best": "infrared_to_visible.rank1",
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


def data() -> dict:
    return {
        "height": 288,
        "width": 144,
        "frames": 6,
        "batch_rule": "identity",
        "identities_per_batch": 4,
        "tracklets_per_identity": 4,
        "training_frames": "random-per-chunk",
        "test_frames": "first-per-chunk",
    }


def augment() -> dict:
    return {
        "pad": 10,
        "flip": 0.5,
        "erase": 0.5,
        "channels": True,
        "clip_consistent": False,
        "also": (),
    }


def model() -> dict:
    return {
        "clip": {**clip_settings(), "text": text_settings()},
        "hub": {
            "on": Setting(True, "hub tokens and their aggregation; False is an ablation"),
            "frames": Setting(
                6,
                "of a tracklet, at most; each has as many hub tokens",
                COUNT,
                HAS_THE_FRAMES,
            ),
            "start": Setting(9, "block that the hub tokens come into first", FITS_THE_TOWER),
            "spread": Setting(1.0, "deviation of the hub tokens at the start", NUMBER),
        },
        "prompts": {
            "on": Setting(True, "sentences and the text tower; False is an ablation"),
            "ids": Setting(
                SENTENCE,
                "tokens of the sentence in CLIP's vocabulary, its marks of start and end with them",
                NOT_EMPTY,
                each(between(0, 10_000_000)),
                ENDS,
                FITS_THE_POSITIONS,
            ),
            "learned": Setting(
                (2, 3, 4, 5),
                "positions of the words that are learned for each identity",
                NOT_EMPTY,
                CONSECUTIVE,
                INSIDE_THE_SENTENCE,
            ),
        },
    }


def loss() -> dict:
    return {
        "text": Setting(0.08, "weight of the cross-entropy of the texts", NUMBER),
        "hub_identity": Setting(0.4, "weight of the hub's cross-entropy", NUMBER),
        "hub_triplet": Setting(1.0, "weight of the hub's triplets", NUMBER),
        "stable_softmin": Setting(
            False, "True keeps the weights of negatives where all distances are large"
        ),
    }


def optimizer() -> dict:
    return {
        "learning_rate": 2.5e-5,
        "head_multiplier": Setting(25.0, "of the rate of classifiers and prompts", NUMBER),
        "bias_multiplier": Setting(25.0, "of the rate of all other biases", NUMBER),
        "weight_decay": Setting(1e-4, "decoupled, of all trained parameters", NUMBER),
        "warmup_epochs": 3,
        "cosine_epochs": 24,
        "floor_factor": 0.01,
    }


HAS_THE_FRAMES = Range(
    lambda frames, config: not config.model.hub.on or frames >= config.data.frames,
    lambda config: f"be {name_with_value('data.frames', config)}, or more",
    relates=True,
)
FITS_THE_TOWER = Range(
    lambda start, config: not config.model.hub.on or 1 <= start <= config.model.clip.depth - 2,
    lambda config: (
        "be 1 to model.clip.depth - 2"
        if config is None
        else f"be 1 to {config.model.clip.depth - 2}, of blocks that count from 0"
    ),
    relates=True,
)
ENDS = Range(  # CLIP finds the end of a text by its largest id
    lambda ids, _: list(ids).index(max(ids)) == len(ids) - 1,
    lambda _: "end with the mark of an end, its largest id, and have it once",
)
FITS_THE_POSITIONS = Range(
    lambda ids, config: len(ids) <= config.model.clip.text.positions,
    lambda config: (
        f"have no more tokens than {name_with_value('model.clip.text.positions', config)}"
    ),
    relates=True,
)
CONSECUTIVE = Range(
    lambda learned, _: list(learned) == list(range(learned[0], learned[0] + len(learned))),
    lambda _: "be one after the other",
)
INSIDE_THE_SENTENCE = Range(
    lambda learned, config: 0 < learned[0] and learned[-1] < len(config.model.prompts.ids) - 1,
    lambda config: (
        "be between the first and the last token of model.prompts.ids"
        + ("" if config is None else f", which has {len(config.model.prompts.ids)}")
    ),
    relates=True,
)

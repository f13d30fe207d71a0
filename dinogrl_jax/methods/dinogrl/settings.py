"""The settings of DinoGRL on HITSZ-VCM (arXiv 2511.04281), as published."""

from ml_collections import ConfigDict

from dinogrl_jax.interface.settings import (
    COUNT,
    NOT_EMPTY,
    NUMBER,
    PATH,
    PIXELS,
    SHARE,
    Range,
    Setting,
    at_least,
    below_setting,
    between,
    divides,
    each,
    multiple_of,
    one_of,
)


def settings() -> dict:
    """The sections that the method has for itself, with units, meanings and ranges."""
    return {
        "data": data(),
        "augment": augment(),
        "model": model(),
        "loss": loss(),
        "optimizer": optimizer(),
        "pretrained": pretrained(),
    }


def data() -> dict:
    return {
        "height": 256,
        "width": 128,
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
        "streams": Setting(
            ("gait", "appearance"),
            "('appearance',) is the appearance-only ablation",
            NOT_EMPTY,
            each(one_of("gait", "appearance")),
        ),
        "pbmge": Setting(
            True, "part-wise mutual enhancement of the two streams; needs both", HAS_BOTH_STREAMS
        ),
        "parts": Setting(
            (1, 2, 4, 8, 16),
            "horizontal bands of the pyramid; for PBMGE the first is 1, and another follows",
            NOT_EMPTY,
            each(COUNT),
            FIT_THE_ROWS,
            FIT_PBMGE,
        ),
        "embedding": Setting(256, "channels of a part's embedding", COUNT),
        "resnet": {
            "stages": Setting(
                (3, 4, 6, 3), "bottleneck blocks of each stage", NOT_EMPTY, each(between(1, 1000))
            ),
            "width": Setting(
                64, "channels of the stem; the last stage has 32 times as many", between(1, 8192)
            ),
        },
        "dinov2": dinov2(),
        "sasgl": sasgl(),
    }


def dinov2() -> dict:
    return {
        "height": Setting(
            448,
            "pixels, what a frame is resized to",
            PIXELS,
            multiple_of("model.dinov2.patch"),
        ),
        "width": Setting(224, "pixels", PIXELS, multiple_of("model.dinov2.patch")),
        "patch": Setting(14, "pixels", PIXELS),
        "grid": Setting(37, "side of the square positional grid in the weights", between(1, 1024)),
        "embedding": Setting(384, "channels of a token", between(1, 65_536)),
        "depth": Setting(12, "blocks", between(1, 1000)),
        "heads": Setting(6, "of attention", between(1, 65_536), divides("model.dinov2.embedding")),
        "mlp_ratio": Setting(
            4.0, "hidden channels of a block's MLP to those of a token", at_least(0.1), NUMBER
        ),
        "mlp": Setting("gelu", "swiglu is ViT-g's", one_of("gelu", "swiglu")),
        "registers": Setting(0, "tokens beside those of patches", between(0, 1024)),
        "antialias": Setting(
            False, "of the positional grid's resampling; the register models use True"
        ),
        "offset": Setting(
            0.1,
            "added to the grid's size in the scale factor; register models use 0.0",
            SHARE,
        ),
        "taps": Setting(
            (2, 5, 8, 11),
            "blocks whose tokens make up mid4",
            NOT_EMPTY,
            each(at_least(0)),
            each(below_setting("model.dinov2.depth")),
        ),
    }


def sasgl() -> dict:
    return {
        "map_channels": Setting(
            16, "of the denoising and of the appearance map", between(1, 65_536)
        ),
        "hidden": Setting(768, "channels of the denoising branch", between(1, 65_536)),
        "pre_channels": Setting(
            64, "of the blocks in front of the gait network", between(1, 65_536)
        ),
        "mask_dropout": Setting(0.5, "on the mask branch's input", SHARE),
        "zeroed_tracklets": Setting(
            0.2, "share of tracklets that lose one of the two maps in training", SHARE
        ),
    }


def loss() -> dict:
    return {
        "shape_connect": Setting(0.02, "weight of the gait stream's own term", NUMBER),
        "mask_mse": Setting(1.0, "weight", NUMBER),
        "part_connect": Setting(0.01, "weight", NUMBER),
        "part_diversity": Setting(5.0, "weight", NUMBER),
        "shape_connect_transposed": Setting(
            False, "True smooths each class's map, not the mixed layout"
        ),
        "identity_scale": Setting(16.0, "of the cosine logits", NUMBER),
        "label_smoothing": 0.1,
        "triplet_margin": 0.2,
    }


def optimizer() -> dict:
    return {
        "learning_rate": 3.5e-4,
        "weight_decay": Setting(5e-4, "added to the gradient, not decoupled", NUMBER),
        "warmup_epochs": 10,
        "warmup_factor": 0.01,
        "decay_epochs": (40, 70),
        "decay_factor": 0.1,
    }


def pretrained() -> dict:
    start = "PyTorch file to start from, or what dinogrl_jax convert made of it; empty: random"
    return {
        "dinov2": Setting("", f"DINOv2's {start}", PATH),
        "resnet50": Setting("", f"torchvision's {start}", PATH),
        "mask_branch": Setting("", f"BigGait's {start}", PATH),
    }


def has_both_streams(config: ConfigDict) -> bool:
    return set(config.model.streams) == {"gait", "appearance"}


def map_rows(config: ConfigDict) -> dict[str, int]:
    """The rows of each stream's feature map, which its parts are bands of."""
    model, halvings = config.model, max(len(config.model.resnet.stages) - 2, 0)
    rows = {  # of what comes into the stages: of upsampled tokens, and of a stem that quarters
        "gait": 2 * (model.dinov2.height // model.dinov2.patch),
        "appearance": -(-config.data.height // 4),
    }
    return {name: -(-rows[name] // 2**halvings) for name in rows if name in model.streams}


def rows_in_words(config: ConfigDict | None) -> str:
    rows = map_rows(config) if config is not None else {}
    shown = "".join(f", {count} of {stream}" for stream, count in rows.items())
    return f"divide the rows of the feature map{shown}, each value of it"


HAS_BOTH_STREAMS = Range(
    lambda value, config: not value or has_both_streams(config),
    lambda _: "be False without both of model.streams",
    relates=True,
)
FIT_THE_ROWS = Range(
    lambda parts, config: all(n % part == 0 for n in map_rows(config).values() for part in parts),
    rows_in_words,
    relates=True,
)
FIT_PBMGE = Range(
    lambda parts, config: not config.model.pbmge or (parts[0] == 1 and len(parts) > 1),
    lambda _: "begin with 1 and go on, as model.pbmge compares the whole with its bands",
    relates=True,
)

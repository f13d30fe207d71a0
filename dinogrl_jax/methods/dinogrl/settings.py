"""The settings of DinoGRL on HITSZ-VCM (arXiv 2511.04281), as published."""


def settings() -> dict:
    """The sections that the method has for itself, with units and meanings."""
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
    }


def pretrained() -> dict:
    return {  # PyTorch files to start from; empty starts from random weights
        "dinov2": "",
        "resnet50": "",
        "mask_branch": "",
    }

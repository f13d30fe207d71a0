"""DinoGRL's three PyTorch files as path rules, and the published weights that training starts from.

Source: the manifest of a released model, 963 entries (tests/golden/dinogrl_manifest.json).
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, ReleasedFile, StartingWeights
from dinogrl_jax.weights.published import (
    BATCH_NORM,
    BOTTLENECK,
    DENSE,
    MASK_BRANCH,
    RESNET,
    STATISTICS,
    dinov2_rules,
    dinov2_settings,
    ones,
    unused_statistics,
)
from dinogrl_jax.weights.rules import CONV, Dropped, Rule, reshaped, under


def released_files(config: ConfigDict) -> dict[str, ReleasedFile]:
    """The three files of a released model."""
    model = config.model
    return {
        "model": ReleasedFile("best_model.pth", APPEARANCE_MODULES, APPEARANCE),
        "pbmge": ReleasedFile("best_model2.pth", ("pbmge",), pbmge_rules(model)),
        "gait": ReleasedFile("best_shape.pth", GAIT_MODULES, gait_rules(model)),
    }


def released_facts(states: Mapping[str, Mapping[str, np.ndarray]], config: ConfigDict) -> Facts:
    """How many identities the classifier in best_model.pth knows.

    states: the state dicts, by the names of `released_files`.

    Raises InputError if there is no such classifier.
    """
    classifier = states.get("model", {}).get(CLASSIFIER)
    if classifier is None or classifier.ndim != 3 or not classifier.shape[2]:
        shape = "[parts, channels, identities]"
        raise InputError(f"best_model.pth (--model) has no {CLASSIFIER} {shape}")
    return Facts(identities=classifier.shape[2])


def starting_weights(config: ConfigDict) -> dict[str, StartingWeights]:
    """The files of published weights that the section `pretrained` can name."""
    stems = ("appearance/stem_visible", "appearance/stem_infrared")
    return {
        "dinov2": StartingWeights(
            title="DINOv2",
            source="dinov2_vits14_pretrain.pth of https://github.com/facebookresearch/dinov2",
            modules={"": ("dinov2",)},
            rules=dinov2_rules(config.model.dinov2.embedding),
            section="model.dinov2",
            recognised=dinov2_settings,
            advised=("height", "width", "antialias", "offset", "taps"),
        ),
        "resnet50": StartingWeights(
            title="ResNet-50",
            source="https://download.pytorch.org/models/resnet50-0676ba61.pth (torchvision, "
            "ImageNet)",
            modules={"stem": stems, "stages": ("appearance/stages", "gait/stages")},
            rules=RESNET,
        ),
        "mask_branch": StartingWeights(
            title="mask branch",
            source="MaskBranch_vits14.pt of BigGait, https://github.com/ShiqiYu/OpenGait",
            modules={"": ("branches/mask_branch",)},
            rules=MASK_BRANCH,
        ),
    }


CLASSIFIER = "BNNecks.fc_bin"  # of best_model.pth: [parts, channels, identities]


def stage_rules(key: str, path: str) -> list[Rule | Dropped]:
    """layer1 … layer4 in a torch.nn.Sequential, which counts them from 0."""
    return [
        rule
        for stage in range(4)
        for rule in under(
            BOTTLENECK, f"{key}{stage}.{{b:[0-9]+}}.", f"{path}layer{stage + 1}_block{{b}}/"
        )
    ]


def head_rules(stream: str) -> list[Rule | Dropped]:
    """Per-part linears and the classifier of a stream."""
    return [
        Rule("FCs.fc_bin", f"params/{stream}_parts/kernel"),
        Rule(CLASSIFIER, f"params/{stream}_classifier/kernel"),
        *under(BATCH_NORM, "BNNecks.bn1d.", f"{stream}_classifier/neck/"),
    ]


GENERALISED_MEAN = Dropped("GAP.p", (1,), lambda shape: np.full(shape, 3, np.float32))

APPEARANCE_MODULES = ("appearance", "appearance_parts", "appearance_classifier")
STEM = [
    Rule("resnet_conv.0.weight", "params/conv1/kernel", CONV),
    *under(BATCH_NORM, "resnet_conv.1.", "conv1/norm/"),
]
APPEARANCE = [
    *under(STEM, "image_encoder1.", "appearance/stem_visible/"),
    *under(STEM, "image_encoder2.", "appearance/stem_infrared/"),
    *stage_rules("share_encoder.resnet_conv.", "appearance/stages/"),
    *under([GENERALISED_MEAN], "share_encoder."),
    *head_rules("appearance"),
]


def pbmge_rules(model: ConfigDict) -> list[Rule | Dropped]:
    """The rules of best_model2.pth; model: the section of the settings."""
    n = model.embedding
    lift, product = reshaped((n, 1, 1), (n,)), reshaped((1, n, 1), (n,))
    enhance = [
        Rule("{name:theta|phi}.weight", "params/{name}_weight", lift),
        Rule("{name:theta|phi}.bias", "params/{name}_bias"),
        Rule("g.0.weight", "params/g_weight", lift),
        Rule("g.0.bias", "params/g_bias"),
    ]
    for key, name in (("W1", "shared"), ("W2", "specific")):
        enhance += [
            Rule(f"{key}.0.weight", f"params/{name}_weight", product),
            Rule(f"{key}.0.bias", f"params/{name}_bias"),
            *under(BATCH_NORM, f"{key}.1.", f"{name}_norm/"),
        ]
    return [
        *under(enhance, "enhance_shape_net_3.", "pbmge/visit/gait/"),
        *under(enhance, "enhance_app_net_3.", "pbmge/visit/appearance/"),
    ]


GAIT_MODULES = ("dinov2", "branches", "gait", "gait_parts", "gait_classifier")


def gait_rules(model: ConfigDict) -> list[Rule | Dropped]:
    """The rules of best_shape.pth; model: the section of the settings."""
    network = [
        *under(PRE_BLOCK, "pre_part.forward_block.", "gait/pre_denoising/"),
        *under(PRE_BLOCK, "pre_rgb.forward_block.", "gait/pre_appearance/"),
        *under(FUSION, "fusion.conv.forward_block.", "gait/fusion/"),
        *stage_rules("post_backbone.resnet_conv.", "gait/stages/"),
        *under([GENERALISED_MEAN], "post_backbone."),
        *unused_graph_convolution("gcn_s", sum(model.parts), 32 * model.resnet.width),
        *unused_graph_convolution("gcn_a", sum(model.parts), 32 * model.resnet.width),
        *head_rules("gait"),
    ]
    return [
        *under(dinov2_rules(model.dinov2.embedding), "dinov2.dinov2.", "dinov2/"),
        *under(MASK_BRANCH, "dinov2.Mask_Branch.", "branches/mask_branch/"),
        *under(DENOISING_BRANCH, "dinov2.Denoising_Branch.", "branches/denoising_branch/"),
        *under(unused_statistics(model.sasgl.map_channels), "dinov2.Denoising_Branch.bn_t."),
        *under(APPEARANCE_BRANCH, "dinov2.Appearance_Branch.", "branches/appearance_branch/"),
        *under(network, "dinov2.gait_net."),
    ]


DENOISING_BRANCH = [
    *under(STATISTICS, "bn_s.", "hidden/norm/"),
    *under(DENSE, "down_sampling.0.", "hidden/"),
    *under(STATISTICS, "down_sampling.1.", "bn_hidden/"),
    *under(DENSE, "down_sampling.3.", "down_sampling/"),
]
APPEARANCE_BRANCH = [
    *under(STATISTICS, "bn_s.", "down_sampling/norm/"),
    *under(STATISTICS, "bn_t.", "bn_t/"),
    *under(DENSE, "down_sampling.", "down_sampling/"),
]
PRE_BLOCK = [
    Rule("conv1.conv.weight", "params/conv1/kernel", CONV),
    *under(BATCH_NORM, "bn1.", "conv1/norm/"),
    Rule("layer1.0.conv{n:[12]}.weight", "params/block/conv{n}/kernel", CONV),
    *under(BATCH_NORM, "layer1.0.bn{n:[12]}.", "block/conv{n}/norm/"),
]
FUSION = [
    Rule("0.weight", "params/conv1/kernel", CONV),
    *under(BATCH_NORM, "1.", "conv1/norm/"),
    Rule("3.weight", "params/conv2/kernel", CONV),
    *under(BATCH_NORM, "4.", "conv2/norm/"),
    Rule("6.weight", "params/conv3/kernel", CONV),
]


def unused_graph_convolution(name: str, nodes: int, channels: int) -> list[Dropped]:
    """A graph convolution of five scales, as the published code initialises it; nothing uses it."""
    layer = uniform(name, (5 * channels) ** -0.5)  # PyTorch's bound for its weight and its bias
    return under(
        [
            Dropped("A_res", (5 * nodes, nodes), uniform(name, 1e-6)),
            Dropped("mlp.layers.0.weight", (channels, 5 * channels, 1), layer),
            Dropped("mlp.layers.0.bias", (channels,), layer),
            Dropped("mlp.layers.1.weight", (channels,), ones),
            Dropped("mlp.layers.1.bias", (channels,)),
            *under(unused_statistics(channels), "mlp.layers.1."),
        ],
        f"{name}.stgc_p2p.",
    )


def uniform(name: str, bound: float) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Shape → float32 numbers between −bound and bound, the same in every export."""
    return partial(_uniform_numbers, seed=zlib.crc32(name.encode()), bound=bound)


def _uniform_numbers(shape: tuple[int, ...], seed: int, bound: float) -> np.ndarray:
    values = np.random.default_rng([seed, len(shape)]).random(shape, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2 * bound)
    return values

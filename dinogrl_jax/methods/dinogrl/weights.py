"""DinoGRL's three PyTorch files as path rules, and the published weights that training starts from.

Source: the manifest of a released model, 963 entries (../tests/golden/dinogrl_manifest.json).
"""

import zlib
from functools import partial
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.weights import published
from dinogrl_jax.weights.published import (
    BATCH_NORM,
    BOTTLENECK,
    DENSE,
    MASK_BRANCH,
    RESNET,
    STATISTICS,
    counter,
    ones,
    unused_statistics,
)
from dinogrl_jax.weights.rules import CONV, Dropped, Rule, reshaped, under


class File(NamedTuple):
    """One file of a released model."""

    name: str
    modules: tuple[str, ...]  # of the model, at the top
    rules: list[Rule | Dropped]


class Part(NamedTuple):
    """Published weights of a part of the model, in a file of their own."""

    title: str
    source: str  # where people get the file
    modules: dict[str, tuple[str, ...]]  # of the file ("" is all of it) → of the model
    rules: list[Rule | Dropped]


def published_files(config: ConfigDict) -> dict[str, File]:
    """The three files; `best_model.pth` decides how many identities a model knows.

    config: the section `model` of `dinogrl_jax.config`.
    """
    return {
        "model": File("best_model.pth", APPEARANCE_MODULES, APPEARANCE),
        "pbmge": File("best_model2.pth", ("pbmge",), pbmge(config)),
        "gait": File("best_shape.pth", GAIT_MODULES, gait(config)),
    }


def published_parts(config: ConfigDict) -> dict[str, Part]:
    """What `config.pretrained` can name.

    config: the section `model` of `dinogrl_jax.config`.
    """
    stems = ("appearance/stem_visible", "appearance/stem_infrared")
    resnet = {"stem": stems, "stages": ("appearance/stages", "gait/stages")}
    dinov2 = published.dinov2(config.dinov2.embedding)
    return {
        "dinov2": Part("DINOv2", DINOV2_SOURCE, {"": ("dinov2",)}, dinov2),
        "resnet50": Part("ResNet-50", RESNET_SOURCE, resnet, RESNET),
        "mask_branch": Part(
            "mask branch", MASK_BRANCH_SOURCE, {"": ("branches/mask_branch",)}, MASK_BRANCH
        ),
    }


DINOV2_SOURCE = "dinov2_vits14_pretrain.pth of https://github.com/facebookresearch/dinov2"
RESNET_SOURCE = "https://download.pytorch.org/models/resnet50-0676ba61.pth (torchvision, ImageNet)"
MASK_BRANCH_SOURCE = "MaskBranch_vits14.pt of BigGait, https://github.com/ShiqiYu/OpenGait"
CLASSIFIER = "BNNecks.fc_bin"  # of best_model.pth: [parts, channels, identities]


def stages(key: str, path: str) -> list[Rule | Dropped]:
    """layer1 … layer4 in a torch.nn.Sequential, which counts them from 0."""
    return [
        rule
        for stage in range(4)
        for rule in under(
            BOTTLENECK, f"{key}{stage}.{{b:[0-9]+}}.", f"{path}layer{stage + 1}_block{{b}}/"
        )
    ]


def head(stream: str) -> list[Rule | Dropped]:
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
    *under(BATCH_NORM, "resnet_conv.1.", "bn1/"),
]
APPEARANCE = [
    *under(STEM, "image_encoder1.", "appearance/stem_visible/"),
    *under(STEM, "image_encoder2.", "appearance/stem_infrared/"),
    *stages("share_encoder.resnet_conv.", "appearance/stages/"),
    *under([GENERALISED_MEAN], "share_encoder."),
    *head("appearance"),
]


def pbmge(config: ConfigDict) -> list[Rule | Dropped]:
    n = config.embedding
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
            Rule(f"{key}.1.weight", f"params/{name}_scale"),
            Rule(f"{key}.1.bias", f"params/{name}_shift"),
            Rule(f"{key}.1.running_mean", f"batch_stats/{name}_mean"),
            Rule(f"{key}.1.running_var", f"batch_stats/{name}_var"),
            Dropped(f"{key}.1.num_batches_tracked", (), counter),
        ]
    return [
        *under(enhance, "enhance_shape_net_3.", "pbmge/enhance_gait/"),
        *under(enhance, "enhance_app_net_3.", "pbmge/enhance_appearance/"),
    ]


GAIT_MODULES = ("dinov2", "branches", "gait", "gait_parts", "gait_classifier")


def gait(config: ConfigDict) -> list[Rule | Dropped]:
    network = [
        *under(PRE_BLOCK, "pre_part.forward_block.", "gait/pre_denoising/"),
        *under(PRE_BLOCK, "pre_rgb.forward_block.", "gait/pre_appearance/"),
        *under(FUSION, "fusion.conv.forward_block.", "gait/fusion/"),
        *stages("post_backbone.resnet_conv.", "gait/stages/"),
        *under([GENERALISED_MEAN], "post_backbone."),
        *graph_convolution("gcn_s", sum(config.parts), 32 * config.resnet.width),
        *graph_convolution("gcn_a", sum(config.parts), 32 * config.resnet.width),
        *head("gait"),
    ]
    return [
        *under(published.dinov2(config.dinov2.embedding), "dinov2.dinov2.", "dinov2/"),
        *under(MASK_BRANCH, "dinov2.Mask_Branch.", "branches/mask_branch/"),
        *under(DENOISING_BRANCH, "dinov2.Denoising_Branch.", "branches/denoising_branch/"),
        *under(unused_statistics(config.sasgl.map_channels), "dinov2.Denoising_Branch.bn_t."),
        *under(APPEARANCE_BRANCH, "dinov2.Appearance_Branch.", "branches/appearance_branch/"),
        *under(network, "dinov2.gait_net."),
    ]


DENOISING_BRANCH = [
    *under(STATISTICS, "bn_s.", "bn_s/"),
    *under(DENSE, "down_sampling.0.", "hidden/"),
    *under(STATISTICS, "down_sampling.1.", "bn_hidden/"),
    *under(DENSE, "down_sampling.3.", "down_sampling/"),
]
APPEARANCE_BRANCH = [
    *under(STATISTICS, "{norm:bn_s|bn_t}.", "{norm}/"),
    *under(DENSE, "down_sampling.", "down_sampling/"),
]
PRE_BLOCK = [
    Rule("conv1.conv.weight", "params/conv1/kernel", CONV),
    *under(BATCH_NORM, "bn1.", "bn1/"),
    Rule("layer1.0.conv{n:[12]}.weight", "params/block/conv{n}/kernel", CONV),
    *under(BATCH_NORM, "layer1.0.bn{n:[12]}.", "block/bn{n}/"),
]
FUSION = [
    Rule("0.weight", "params/conv1/kernel", CONV),
    *under(BATCH_NORM, "1.", "bn1/"),
    Rule("3.weight", "params/conv2/kernel", CONV),
    *under(BATCH_NORM, "4.", "bn2/"),
    Rule("6.weight", "params/conv3/kernel", CONV),
]


def graph_convolution(name: str, nodes: int, channels: int) -> list[Dropped]:
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


def uniform(name: str, bound: float):
    """Shape → float32 numbers between −bound and bound, the same in every export."""
    return partial(_uniform, seed=zlib.crc32(name.encode()), bound=bound)


def _uniform(shape: tuple[int, ...], seed: int, bound: float) -> np.ndarray:
    values = np.random.default_rng([seed, len(shape)]).random(shape, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2 * bound)
    return values

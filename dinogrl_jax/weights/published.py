"""What published PyTorch files call the tensors of the models here, as path rules (`rules`).

The paths are those of a model by itself; `rules.under` places them in a larger one.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.rules import CONV, LINEAR, Dropped, Rule, under

ones, counter = partial(np.ones, dtype=np.float32), partial(np.zeros, dtype=np.int64)

DENSE = [Rule("weight", "params/kernel", LINEAR), Rule("bias", "params/bias")]
STATISTICS = [  # BatchNorm without scale and shift
    Rule("running_mean", "batch_stats/mean"),
    Rule("running_var", "batch_stats/var"),
    Dropped("num_batches_tracked", (), counter, beside="running_mean"),
]
AFFINE = [Rule("weight", "params/scale"), Rule("bias", "params/bias")]
BATCH_NORM = [*AFFINE, *STATISTICS]

BOTTLENECK = [
    Rule("conv{n:[123]}.weight", "params/conv{n}/kernel", CONV),
    *under(BATCH_NORM, "bn{n:[123]}.", "conv{n}/norm/"),
    Rule("downsample.0.weight", "params/shortcut/kernel", CONV),
    *under(BATCH_NORM, "downsample.1.", "shortcut/norm/"),
]
# torchvision's ResNet: resnet50-0676ba61.pth and the like.
RESNET = [
    Rule("conv1.weight", "params/stem/conv1/kernel", CONV),
    *under(BATCH_NORM, "bn1.", "stem/conv1/norm/"),
    *under(BOTTLENECK, "layer{s:[1-4]}.{b:[0-9]+}.", "stages/layer{s}_block{b}/"),
    Dropped("fc.weight", None),
    Dropped("fc.bias", None),
]


# A block of CLIP's towers, and the towers by the names of OpenAI's code.
CLIP_BLOCK = [
    *under(AFFINE, "ln_{n:[12]}.", "norm{n}/"),
    Rule("attn.in_proj_weight", "params/attn/qkv/kernel", LINEAR),
    Rule("attn.in_proj_bias", "params/attn/qkv/bias"),
    *under(DENSE, "attn.out_proj.", "attn/proj/"),
    *under(DENSE, "mlp.c_fc.", "mlp/fc1/"),
    *under(DENSE, "mlp.c_proj.", "mlp/fc2/"),
]
CLIP_BLOCKS = under(CLIP_BLOCK, "transformer.resblocks.{i:[0-9]+}.", "block{i}/")
CLIP_IMAGE = [
    Rule("class_embedding", "params/class_embedding"),
    Rule("positional_embedding", "params/positional_embedding"),
    Rule("conv1.weight", "params/patch_embed/kernel", CONV),
    *under(AFFINE, "ln_pre.", "norm_before/"),
    *CLIP_BLOCKS,
    *under(AFFINE, "ln_post.", "norm/"),
    Rule("proj", "params/projection"),
]
CLIP_TEXT = [
    Rule("positional_embedding", "params/positional_embedding"),
    *CLIP_BLOCKS,
    *under(AFFINE, "ln_final.", "norm/"),
    Rule("text_projection", "params/projection"),
]
# OpenAI's ViT-B-16.pt, the like of other sizes, and open_clip's.
CLIP = [
    *under(CLIP_IMAGE, "visual.", "image/"),
    *under(CLIP_TEXT, "", "text/"),
    Dropped("token_embedding.weight", None),
    Dropped("logit_scale", None),
    Dropped("{name:input_resolution|context_length|vocab_size}", None),
    Dropped("{tower:vision|text}_model.embeddings.position_ids", None),  # Hugging Face's
]


PUBLISHED_EMBEDDINGS = (384, 768, 1024, 1536)  # of ViT-S, B, L and g, whose heads have 64 channels


def unused_statistics(channels: int) -> list[Dropped]:
    """The rules of a BatchNorm without scale and shift that is in the files and in no forward."""
    return [
        Dropped("running_mean", (channels,)),
        Dropped("running_var", (channels,), ones),
        Dropped("num_batches_tracked", (), counter),
    ]


# BigGait's MaskBranch_vits14.pt, and the branch of the same name in DinoGRL.
MASK_BRANCH = [
    *under(STATISTICS, "bn_s.", "bn_s/"),
    *under(unused_statistics(2), "bn_t."),
    *under(DENSE, "{layer:down_sampling|up_sampling}.", "{layer}/"),
]


def dinov2_rules(embedding: int) -> list[Rule | Dropped]:
    """The rules of DINOv2's dinov2_vit{s,b,l,g}14[_reg4]_pretrain.pth."""
    block = [
        *under(AFFINE, "norm{n:[12]}.", "norm{n}/"),
        *under(DENSE, "attn.{layer:qkv|proj}.", "attn/{layer}/"),
        *under(DENSE, "mlp.{layer:fc1|fc2|w12|w3}.", "mlp/{layer}/"),
        Rule("ls{n:[12]}.gamma", "params/ls{n}"),
    ]
    return [
        *(Rule(name, f"params/{name}") for name in ("cls_token", "pos_embed", "register_tokens")),
        Dropped("mask_token", (1, embedding)),
        Rule("patch_embed.proj.weight", "params/patch_embed/kernel", CONV),
        Rule("patch_embed.proj.bias", "params/patch_embed/bias"),
        *under(block, "blocks.{i:[0-9]+}.", "block{i}/"),
        *under(AFFINE, "norm.", "norm/"),
    ]


def dinov2_settings(state: Mapping[str, np.ndarray]) -> dict:
    """The settings `model.dinov2` of the transformer whose weights these are.

    Those that its published code has beside the weights are among them: how it resamples positions,
    and the last block of each quarter as taps. Heads are left out where the size is not published.

    Raises InputError where the weights are not DINOv2's.
    """
    if "blocks.0.attn.qkv.weight" in state and "blocks.0.ls1.gamma" not in state:
        raise InputError("holds no DINOv2: its blocks have no layer scale (blocks.0.ls1.gamma)")
    try:
        embedding = state["cls_token"].shape[2]
        grid = math.isqrt(state["pos_embed"].shape[1] - 1)
        patch = state["patch_embed.proj.weight"].shape[3]
        blocks = {int(key.split(".")[1]) for key in state if key.startswith("blocks.")}
    except (KeyError, IndexError, ValueError):
        raise InputError("holds no DINOv2 (cls_token, pos_embed, patch_embed, blocks)") from None
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    heads = {"heads": embedding // 64} if embedding in PUBLISHED_EMBEDDINGS else {}
    return {
        "patch": patch,
        "grid": grid,
        "embedding": embedding,
        "depth": len(blocks),
        **heads,
        "mlp": "swiglu" if "blocks.0.mlp.w12.weight" in state else "gelu",
        "registers": registers,
        "antialias": bool(registers),
        "offset": 0.0 if registers else 0.1,
        "taps": tuple(sorted({max(len(blocks) * i // 4, 1) - 1 for i in (1, 2, 3, 4)})),
    }


RESNETS = {(3, 4, 6, 3): "ResNet-50", (3, 4, 23, 3): "ResNet-101", (3, 8, 36, 3): "ResNet-152"}


def resnet_settings(state: Mapping[str, np.ndarray]) -> dict:
    """The settings of the ResNet with bottlenecks whose weights these are: stages and width.

    Raises InputError where the weights are not those of one.
    """
    keys = (re.fullmatch(r"layer([1-9])\.([0-9]{1,3})\.conv3\.weight", key) for key in state)
    blocks = Counter(int(key[1]) for key in keys if key)
    stem = state.get("conv1.weight")
    if sorted(blocks) != list(range(1, len(blocks) + 1)) or not blocks or np.ndim(stem) != 4:
        raise InputError("holds no ResNet with bottlenecks (conv1, layer1.0.conv3)")
    return {"stages": tuple(blocks[stage] for stage in sorted(blocks)), "width": len(stem)}

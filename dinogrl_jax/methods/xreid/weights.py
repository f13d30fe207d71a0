"""X-ReID's PyTorch file as path rules, and the published weights that training starts from.

Source: the manifest of a released model, 249 entries (tests/golden/xreid_manifest.json).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, ReleasedFile, StartingWeights
from dinogrl_jax.models.clip import clip_grid
from dinogrl_jax.weights.clip_files import activation_remark, fitted, image_sizes
from dinogrl_jax.weights.published import (
    AFFINE,
    BATCH_NORM,
    CLIP,
    CLIP_IMAGE,
    DENSE,
    ones,
    unused_statistics,
)
from dinogrl_jax.weights.rules import LINEAR, Dropped, Rule, under

NAMES = {  # of norms and classifiers in the file → here
    "bn_feat_temp": "norm_class",
    "bn_proj_temp": "norm_projected",
    "bn_feat_frame": "norm_class_frames",
    "bn_proj_frame": "norm_projected_frames",
    "classifier_clip_temp": "classifier",
    "classifier_clip_frame": "classifier_frames",
}
SII_NAMES = {  # the same of the interactions
    "bn_TSM_tp0": "norm_interactions",
    "bn_TSM_frame0": "norm_interactions_frames",
    "classifier_TSM_tp0": "classifier_interactions",
}
CLASSIFIER, CAMERAS = "classifier_clip_temp.weight", "cv_embed"  # [ids, channels], [cameras, …]


def released_files(config: ConfigDict) -> dict[str, ReleasedFile]:
    """The file of a released model; with parts of the model off, what it has of the others.

    There is none where the model has what the released code has not: LII and CII.
    """
    model, width = config.model, config.model.clip.width
    if model.lii.on or model.cii.on:
        return {}
    names = NAMES | (SII_NAMES if model.sii.on else {})
    modules = ["image", "cameras", *names.values()]
    rules = [
        Rule(CAMERAS, "params/cameras/table"),
        *under(CLIP_IMAGE, "image_encoder.", "image/"),
        *unused_norm("bottleneck_local", width),
    ]
    for key, name in names.items():
        content = BATCH_NORM if name.startswith("norm") else CLASSIFIER_RULES
        rules += under(content, f"{key}.", f"{name}/")
    if model.sii.on:
        modules.append("sii")
        for i in range(model.sii.depth):
            place = f"{SII_BLOCK}{i + 1 if i else ''}.Rotation."
            rules += under(CROSS_ATTENTION, place, f"sii/block{i}/")
        rules += unused_interactions(width)
    return {"model": ReleasedFile("best_model.pth.tar", tuple(modules), rules)}


def released_facts(states: Mapping[str, Mapping[str, np.ndarray]], config: ConfigDict) -> Facts:
    """How many identities and cameras best_model.pth.tar knows.

    The file does not say the cameras' numbers: they are `model.cameras.first` and those behind it.

    states: the state dicts, by the names of `released_files`.

    Raises InputError if it has no classifier or no table of cameras.
    """
    state, sizes = states.get("model", {}), []
    for key, what in ((CLASSIFIER, "identities"), (CAMERAS, "cameras")):
        array = state.get(key)
        if array is None or array.ndim != 2 or not len(array):
            raise InputError(f"best_model.pth.tar (--model) has no {key} [{what}, channels]")
        sizes.append(len(array))
    identities, cameras = sizes
    first = int(config.model.cameras.first)
    return Facts(identities, tuple(range(first, first + cameras)))


def starting_weights(config: ConfigDict) -> dict[str, StartingWeights]:
    """The file of published weights that the section `pretrained` can name."""
    model, data = config.model, config.data
    return {
        "clip": StartingWeights(
            title="CLIP",
            source="ViT-B-16.pt of https://github.com/openai/CLIP",
            modules={"image": ("image",), "text": ("text",)},  # there is no text tower here
            rules=CLIP,
            section="model.clip",
            recognised=image_sizes,
            prepared=partial(fitted, grid=clip_grid(model.clip, data.height, data.width)),
            remark=partial(activation_remark, activation=model.clip.activation),
        ),
    }


SII_BLOCK, LII_BLOCK = "TSM_space.Reconstuct_shift", "TSM_temp.Reconstuct_shift"
CLASSIFIER_RULES = [Rule("weight", "params/kernel", LINEAR)]
CROSS_ATTENTION = [
    *under(AFFINE, "norm1.", "query_norm/"),
    *under(AFFINE, "attn.normy.", "key_norm/"),
    Rule("attn.q_.weight", "params/query", LINEAR),
    Rule("attn.k_.weight", "params/key", LINEAR),
    Rule("attn.v_.weight", "params/value", LINEAR),
    *under(DENSE, "attn.proj.", "proj/"),
    *under(AFFINE, "norm2.", "norm/"),
    *under(DENSE, "mlp.fc1.", "mlp/fc1/"),
    *under(DENSE, "mlp.fc2.", "mlp/fc2/"),
]


def unused_norm(key: str, channels: int) -> list[Dropped]:
    """A BatchNorm that the published code has and does not use."""
    affine = [Dropped("weight", (channels,), ones), Dropped("bias", (channels,))]
    return under([*affine, *unused_statistics(channels)], f"{key}.")


def unused_interactions(channels: int) -> list[Dropped]:
    """What the published code has for an interaction that it does not call, as it draws it."""
    found = [*unused_norm("bn_TSM_tp1", channels), *unused_norm("bn_TSM_frame1", channels)]
    for name in ("frame0", "tp1", "frame1"):
        used = "classifier_TSM_tp0.weight"
        found.append(Dropped(f"classifier_TSM_{name}.weight", None, small_numbers, like=used))
    shapes = {f"attn.{name}.weight": (channels, channels) for name in ("q_", "k_", "v_", "proj")}
    shapes |= {"mlp.fc1.weight": (4 * channels, channels)}
    shapes |= {"mlp.fc2.weight": (channels, 4 * channels)}
    drawn = {"attn.proj.bias": channels, "mlp.fc1.bias": 4 * channels, "mlp.fc2.bias": channels}
    block = [Dropped(key, shape, uniform_numbers) for key, shape in shapes.items()]
    for key, size in drawn.items():
        fan_in = shapes[key.replace("bias", "weight")][1]
        block.append(Dropped(key, (size,), partial(uniform_numbers, fan_in=fan_in)))
    for name in ("norm1", "attn.normy", "norm2"):
        block += [
            Dropped(f"{name}.weight", (channels,), ones),
            Dropped(f"{name}.bias", (channels,)),
        ]
    return found + under(block, f"{LII_BLOCK}.Rotation.")


def small_numbers(like: np.ndarray) -> np.ndarray:
    """Normal numbers of deviation 0.001, the same in every export."""
    rng = np.random.default_rng(0)
    return np.float32(0.001) * rng.standard_normal(like.shape, np.float32)


def uniform_numbers(shape: tuple[int, ...], fan_in: int = 0) -> np.ndarray:
    """As torch.nn.Linear draws weights and biases, the same in every export.

    fan_in: channels that come in; the last axis of a weight has them.
    """
    limit = (fan_in or shape[-1]) ** -0.5
    return np.random.default_rng(0).uniform(-limit, limit, shape).astype(np.float32)

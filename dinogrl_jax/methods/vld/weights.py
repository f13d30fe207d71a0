"""VLD's PyTorch file as path rules, and the published weights that training starts from.

Source: the manifest of a released model, 335 entries (tests/golden/vld_manifest.json).
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts, ReleasedFile, StartingWeights
from dinogrl_jax.models.clip import clip_grid
from dinogrl_jax.weights.clip_files import activation_remark, clip_sizes, fitted
from dinogrl_jax.weights.published import (
    BATCH_NORM,
    CLIP,
    CLIP_IMAGE,
    CLIP_TEXT,
    DENSE,
    ones,
    unused_statistics,
)
from dinogrl_jax.weights.rules import LINEAR, Dropped, Rule, under

NAMES = {  # of classifiers in the file → here
    "classifier": "classifier",
    "classifier_proj": "classifier_projected",
    "classifier_STP": "classifier_hub",
}
CLASSIFIER = "classifier.classifier.weight"  # [identities, channels]


def released_files(config: ConfigDict) -> dict[str, ReleasedFile]:
    """The file of a released model; with parts of the model off, what it has of the others."""
    model = config.model
    modules = ["image", "classifier", "classifier_projected"]
    if model.hub.on:
        modules += ["hub", "aggregation", "classifier_hub"]
    if model.prompts.on:
        modules += ["prompts", "text"]
    rules = [
        Dropped("logit_scale", (), partial(np.full, fill_value=LOGIT_SCALE, dtype=np.float32)),
        *under(CLIP_IMAGE, "image_encoder.", "image/"),
        *UNUSED_NORM,
    ]
    for key, name in NAMES.items():
        if name in modules:
            rules += under(HEAD, f"{key}.", f"{name}/")
    if model.hub.on:
        rules += [
            Rule("prompt_embedding", "params/hub/tokens"),
            Rule("attn.in_proj_weight", "params/aggregation/qkv/kernel", LINEAR),
            Rule("attn.in_proj_bias", "params/aggregation/qkv/bias"),
            *under(DENSE, "attn.out_proj.", "aggregation/proj/"),
            *unused_head(model.clip.embedding),
        ]
    if model.prompts.on:
        rules += under(CLIP_TEXT, "text_encoder.", "text/")
        rules += under([LEARNED, *FIXED], "prompt_learner.", "prompts/")
    return {"model": ReleasedFile("best_model.pth", tuple(modules), rules)}


def released_facts(states: Mapping[str, Mapping[str, np.ndarray]], config: ConfigDict) -> Facts:
    """How many identities the classifier in best_model.pth knows.

    states: the state dicts, by the names of `released_files`.

    Raises InputError if there is no such classifier.
    """
    classifier = states.get("model", {}).get(CLASSIFIER)
    if classifier is None or classifier.ndim != 2 or not len(classifier):
        raise InputError(f"best_model.pth (--model) has no {CLASSIFIER} [identities, channels]")
    return Facts(identities=len(classifier))


def starting_weights(config: ConfigDict) -> dict[str, StartingWeights]:
    """The file of published weights that the section `pretrained` can name."""
    model, data = config.model, config.data
    sentence = {"ids": model.prompts.ids, "learned": model.prompts.learned}
    grid = clip_grid(model.clip, data.height, data.width)
    return {
        "clip": StartingWeights(
            title="CLIP",
            source="ViT-B-16.pt of https://github.com/openai/CLIP",
            modules={
                "image": ("image",),
                "text": ("text",),
                "prefix": ("prompts/prefix",),
                "suffix": ("prompts/suffix",),
            },
            rules=[*CLIP, *FIXED],
            section="model.clip",
            recognised=clip_sizes,
            prepared=partial(fitted, grid=grid, **sentence if model.prompts.on else {}),
            remark=partial(activation_remark, activation=model.clip.activation),
        ),
    }


LEARNED = Rule("cls_ctx", "params/learned")
FIXED = [Rule(f"token_{name}", f"params/{name}") for name in ("prefix", "suffix")]
LOGIT_SCALE = math.log(1 / 0.07)  # CLIP's at its own start
HEAD = [*under(BATCH_NORM, "BN.", "norm/"), Rule("classifier.weight", "params/kernel", LINEAR)]
# Nothing reads CLIP's final norm where the published code has a copy of it.
UNUSED_NORM = [
    Dropped(f"ln_post2.{name}", None, np.copy, like=f"image_encoder.ln_post.{name}")
    for name in ("weight", "bias")
]


def unused_head(channels: int) -> list[Dropped]:
    """A classifier of the hub's projection, which no loss sees: as the published code draws it."""
    norm = [
        Dropped("weight", (channels,), ones),
        Dropped("bias", (channels,)),
        *unused_statistics(channels),
    ]
    return [
        *under(norm, "classifier_proj_STP.BN."),
        Dropped(
            "classifier_proj_STP.classifier.weight",
            None,
            small_numbers,
            like="classifier_proj.classifier.weight",
        ),
    ]


def small_numbers(like: np.ndarray) -> np.ndarray:
    """Normal numbers of deviation 0.001, the same in every export."""
    rng = np.random.default_rng(0)
    return np.float32(0.001) * rng.standard_normal(like.shape, np.float32)

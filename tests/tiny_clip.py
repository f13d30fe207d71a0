"""A method of CLIP's two towers and a sentence, for tests of CLIP's files."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict
from small_states import CLIP_SENTENCE

from dinogrl_jax import config as settings
from dinogrl_jax.interface.checks import DECLARED
from dinogrl_jax.interface.settings import merged_declaration
from dinogrl_jax.methods.contract import Clips, Facts, StartingWeights
from dinogrl_jax.models.clip import (
    ImageTower,
    TextTower,
    clip_grid,
    clip_settings,
    text_settings,
)
from dinogrl_jax.weights.clip_files import activation_remark, clip_sizes, fitted
from dinogrl_jax.weights.published import CLIP
from dinogrl_jax.weights.rules import Rule

FLOAT32 = jnp.dtype("float32")
LEARNED = (2, 3)
OWN = {
    "method": "tiny_clip",
    "data": {"height": 8, "width": 4, "frames": 1},
    "model": {
        "clip": {
            "patch": 2,
            "stride": 0,
            "width": 8,
            "depth": 2,
            "heads": 2,
            "embedding": 4,
            "activation": "quick_gelu",
            "text": {"width": 6, "depth": 2, "heads": 2, "positions": 7},
        },
        "has_text": True,
    },
    "pretrained": {"clip": ""},
}
RANGES = {**settings.KNOWN, "model": {"clip": {**clip_settings(), "text": text_settings()}}}
DECLARED["tiny_clip"] = merged_declaration(settings.SETTINGS, OWN, RANGES)


class Prompts(nn.Module):
    """Words before and behind those that are learned for each identity."""

    identities: int

    @nn.compact
    def __call__(self):
        init = nn.initializers.normal()
        shapes = {"prefix": (1, 2, 6), "learned": (self.identities, 2, 6), "suffix": (1, 3, 6)}
        parts = {name: self.param(name, init, shape) for name, shape in shapes.items()}
        return jnp.concatenate(
            [jnp.broadcast_to(x, (self.identities, *x.shape[1:])) for x in parts.values()], axis=1
        )


class Model(nn.Module):
    config: ConfigDict
    facts: Facts

    @nn.compact
    def __call__(self, clips: Clips, *, train: bool):
        model = self.config.model
        frames = clips.frames.reshape(-1, *clips.frames.shape[3:])
        image = ImageTower(model.clip, FLOAT32, name="image")
        made = image.projected(image.final_norm(image(frames).last[:, 0]))
        if model.has_text:
            prompts = Prompts(self.facts.identities, name="prompts")()
            end = len(CLIP_SENTENCE) - 1
            made = made @ TextTower(model.clip, FLOAT32, name="text")(prompts, end).T
        return made


def starting_weights(config: ConfigDict) -> dict[str, StartingWeights]:
    c, d = config.model.clip, config.data
    tokens = [Rule(f"token_{name}", f"params/{name}") for name in ("prefix", "suffix")]
    return {
        "clip": StartingWeights(
            title="CLIP",
            source="https://example.org",
            modules={
                "image": ("image",),
                "text": ("text",),
                "prefix": ("prompts/prefix",),
                "suffix": ("prompts/suffix",),
            },
            rules=[*CLIP, *tokens],
            section="model.clip",
            recognised=clip_sizes,
            prepared=partial(
                fitted,
                grid=clip_grid(c, d.height, d.width),
                ids=CLIP_SENTENCE,
                learned=LEARNED,
            ),
            remark=partial(activation_remark, activation=c.activation),
        )
    }


def get_config() -> ConfigDict:
    config = ConfigDict(settings.shared())
    config.update(OWN)
    return config

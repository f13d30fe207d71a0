"""VLD: video-level language-driven visible-infrared person re-identification (arXiv 2506.02439).

CLIP's image tower reads frames; hub tokens pass between the frames of a tracklet, and an attention
gathers them. In training CLIP's text tower reads a sentence for each identity, whose learned words
both modalities share. The descriptor of a tracklet is the mean over frames of the class token and
of what is gathered.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.vld.hub import Aggregation, Hub
from dinogrl_jax.methods.vld.prompts import Prompts
from dinogrl_jax.models.clip import ImageTower, TextTower
from dinogrl_jax.models.layers import BatchNorm
from dinogrl_jax.ops.chunks import map_in_shares
from dinogrl_jax.ops.precision import accumulation_dtype

RANKED = {"class": "class token", "hub": "hub tokens"}  # features of a descriptor, for people


class Output(NamedTuple):
    """v tracklets: b pairs in the order of the batch, visible before infrared in each pair.

    Features are means over frames: "before_last", of the class token in front of the last block;
    "class" and "projected", of the normalised one behind it and its place in the space of texts;
    "hub", of what is gathered. Logits are of "class", "projected" and "hub" by a classifier, of
    "text" by products of "projected" with the texts; there are none in an evaluation.
    """

    features: dict[str, Float[Array, "v _"]]
    logits: dict[str, Float[Array, "v ids"]]


class Model(nn.Module):
    """Clips → features and logits."""

    config: ConfigDict
    facts: Facts

    def setup(self) -> None:
        c, ids = self.config.model, self.facts.identities
        dtype = jnp.dtype(c.compute_dtype)
        self.image = ImageTower(c.clip, dtype, c.remat)
        self.classifier = Classifier(ids)
        self.classifier_projected = Classifier(ids)
        if c.hub.on:
            self.hub = Hub(c.hub, c.clip.width)
            self.aggregation = Aggregation(c.clip.heads, dtype)
            self.classifier_hub = Classifier(ids)
        if c.prompts.on:
            words, text = (c.prompts.learned, len(c.prompts.ids)), c.clip.text
            self.prompts = Prompts(ids, *words, text.positions, text.width)
            self.text = TextTower(c.clip, dtype, c.remat)

    def __call__(self, clips: Clips, *, train: bool) -> Output:
        features = self.features(clips)
        if not (train or self.is_initializing()):
            return Output(features, {})
        logits = {
            "class": self.classifier(features["class"], train=train),
            "projected": self.classifier_projected(features["projected"], train=train),
        }
        if self.config.model.prompts.on:
            logits["text"] = features["projected"] @ self.texts().T
        if self.config.model.hub.on:
            logits["hub"] = self.classifier_hub(features["hub"], train=train)
        return Output(features, logits)

    def features(self, clips: Clips) -> dict[str, Float[Array, "v _"]]:
        """The features of v tracklets, by name."""
        b, m, t = clips.frames.shape[:3]
        frames = clips.frames.reshape(b * m * t, *clips.frames.shape[3:])
        has_hub = self.config.model.hub.on
        tokens = self.image(frames, between=partial(self.hub, t=t) if has_hub else None)
        last = self.image.final_norm(tokens.last[:, 0])
        found = {
            "before_last": tokens.before_last[:, 0],
            "class": last,
            "projected": self.image.projected(last),
        }
        if has_hub:
            found["hub"] = self.image.final_norm(self.aggregation(tokens.last, t))
        return {name: mean_over_frames(x, t) for name, x in found.items()}

    def texts(self) -> Float[Array, "ids e"]:
        """The vector of each identity's sentence; each device makes a share of them."""
        end = len(self.config.model.prompts.ids) - 1
        made = map_in_shares(lambda prompts: self.text(prompts, end), self.prompts())
        return made.astype(accumulation_dtype(made.dtype))


class Classifier(nn.Module):
    """BatchNorm and a linear layer without bias: logits of identities."""

    identities: int

    @nn.compact
    def __call__(self, x: Float[Array, "v d"], *, train: bool) -> Float[Array, "v ids"]:
        init = nn.initializers.normal(0.001)
        kernel = self.param("kernel", init, (x.shape[1], self.identities))
        return BatchNorm(x.shape[1], name="norm")(x, train=train) @ kernel


def mean_over_frames(x: Float[Array, "f d"], t: int) -> Float[Array, "v d"]:
    """The mean over the t frames of each tracklet, at least in float32."""
    return x.reshape(len(x) // t, t, -1).astype(accumulation_dtype(x.dtype)).mean(1)


def descriptor(output: Output, config: ConfigDict) -> Float[Array, "v p d"]:
    """What is ranked, by products of the vectors as they are: not normalised."""
    return jnp.stack([output.features[x] for x in RANKED if x in output.features], axis=1)


def part_names(config: ConfigDict) -> list[str]:
    return [title for name, title in RANKED.items() if name != "hub" or config.model.hub.on]

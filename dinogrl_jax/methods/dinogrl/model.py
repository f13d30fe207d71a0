"""DinoGRL: DINOv2 driven gait representation learning (arXiv 2511.04281).

A gait stream on frozen DINOv2 tokens (SASGL) and a ResNet appearance stream enhance each other part
by part (PBMGE). Each stream is classified and ranked on its own parts; the descriptor of a tracklet
is all parts of both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.dinogrl.pbmge import PBMGE
from dinogrl_jax.methods.dinogrl.sasgl import Branches, GaitNetwork, Maps
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.models.parts import PartClassifier, PartLinear, horizontal_pyramid
from dinogrl_jax.models.resnet import Stages, Stem
from dinogrl_jax.ops.convolution import maximum_over
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.remat import remat

STREAMS = ("gait", "appearance")


class Output(NamedTuple):
    """v tracklets: b pairs in the order of the batch, visible before infrared in each pair."""

    embedding: dict[str, Float[Array, "v p d"]]  # by stream
    logits: dict[str, Float[Array, "v p ids"]]
    maps: Maps | None  # of v·t frames, before maps are zeroed; None without a gait stream


class Model(nn.Module):
    """Clips → embeddings and logits of their parts."""

    config: ConfigDict
    facts: Facts

    @nn.compact
    def __call__(
        self, clips: Clips, *, train: bool, kept_maps: Bool[Array, "v 2"] | None = None
    ) -> Output:
        """kept_maps: which of a tracklet's two maps the gait network sees; None: all of them."""
        c = self.config.model
        dtype = jnp.dtype(c.compute_dtype)
        if set(c.streams) - set(STREAMS) or (c.pbmge and set(c.streams) != set(STREAMS)):
            raise InputError(f"model.streams = {c.streams}: of {STREAMS}; model.pbmge needs both")
        features, maps = {}, None
        if "gait" in c.streams:
            features["gait"], maps = self._gait(clips.frames, kept_maps, train)
        if "appearance" in c.streams:
            stream = AppearanceStream(c, dtype, name="appearance")
            features["appearance"] = stream(clips, train=train)
        embedding = {name: self._parts(name, x) for name, x in features.items()}
        if c.pbmge:
            pbmge = PBMGE(c.parts, name="pbmge")
            pair = pbmge(*(embedding[name] for name in STREAMS), train=train)
            embedding = dict(zip(STREAMS, pair, strict=True))
        logits = {
            name: PartClassifier(self.facts.identities, name=f"{name}_classifier")(x, train=train)
            for name, x in embedding.items()
        }
        return Output(embedding, logits, maps)

    def _gait(
        self, frames: Float[Array, "b m t h w 3"], kept_maps: Array | None, train: bool
    ) -> tuple[Float[Array, "v h2 w2 c"], Maps]:
        """A feature map of every tracklet, and the maps that it is made of."""
        c = self.config.model
        dtype = jnp.dtype(c.compute_dtype)
        b, m, t = frames.shape[:3]
        tokens = DINOv2(c.dinov2, dtype, name="dinov2")(
            frames.reshape(b * m * t, *frames.shape[3:])
        )
        maps = Branches(c, dtype, name="branches")(jax.lax.stop_gradient(tokens), train=train)
        seen = maps if kept_maps is None else zeroed(maps, kept_maps, t)
        x = GaitNetwork(c, dtype, name="gait")(seen.denoising, seen.appearance, train=train)
        return maximum_over(x.reshape(b * m, t, *x.shape[1:]), 1), maps

    def _parts(self, stream: str, x: Float[Array, "v h w c"]) -> Float[Array, "v p d"]:
        c = self.config.model
        linear = PartLinear(c.embedding, x.dtype, name=f"{stream}_parts")
        return linear(horizontal_pyramid(x, c.parts)).astype(accumulation_dtype(x.dtype))


class AppearanceStream(nn.Module):
    """A stem for each modality, then one ResNet for both: a feature map of every tracklet.

    config: the section `model` of DinoGRL's settings.
    """

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, clips: Clips, *, train: bool) -> Float[Array, "v h4 w4 c"]:
        resnet, keeps = self.config.resnet, self.config.remat
        b, m, t = clips.frames.shape[:3]
        stems = []
        for i, modality in enumerate(clips.modalities):
            frames = clips.frames[:, i].reshape(b * t, *clips.frames.shape[3:])
            # Without ReLU, as in the published code.
            stem = remat(Stem, keeps, static_argnums=2)(
                resnet.width, self.dtype, has_relu=False, name=f"stem_{modality}"
            )
            stems.append(stem(frames, train))
        # Side by side on the modality axis: the tracklets of a pair stay on one device.
        x = jnp.stack([x.reshape(b, t, *x.shape[1:]) for x in stems], axis=1)
        x = x.reshape(b * m * t, *x.shape[3:])
        x = Stages(resnet.stages, resnet.width, self.dtype, keeps, name="stages")(x, train=train)
        return maximum_over(x.reshape(b * m, t, *x.shape[1:]), 1)


def descriptor(output: Output, config: ConfigDict) -> Float[Array, "v p2 d"]:
    """What is ranked: the parts of the gait stream, then those of the appearance stream."""
    return jnp.concatenate(list(output.embedding.values()), axis=1)


def part_names(config: ConfigDict) -> list[str]:
    """What each part of the descriptor is."""
    c = config.model
    bands = [f"band {i + 1} of {n}" for n in c.parts for i in range(n)]
    if c.pbmge:
        bands += [f"whole, enhanced by {n} bands" for n in c.parts[1:]]
    return [f"{stream}, {band}" for stream in STREAMS if stream in c.streams for band in bands]


def zeroed(maps: Maps, kept: Bool[Array, "v 2"], frames: int) -> Maps:
    """The maps with those of (tracklet, denoising or appearance) zeroed that are not kept."""
    kept = jnp.repeat(kept, frames, axis=0)[:, None, None, :]
    return maps._replace(
        denoising=jnp.where(kept[..., :1], maps.denoising, 0),
        appearance=jnp.where(kept[..., 1:], maps.appearance, 0),
    )

"""DinoGRL: DINOv2 driven gait representation learning (arXiv 2511.04281).

A gait stream on frozen DINOv2 tokens (SASGL) and a ResNet appearance stream enhance each other part
by part (PBMGE). Each stream is classified and ranked on its own parts; the descriptor of a tracklet
is all parts of both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.methods.dinogrl.pbmge import PBMGE
from dinogrl_jax.methods.dinogrl.sasgl import Branches, GaitNetwork, Maps
from dinogrl_jax.models import losses
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.models.parts import PartClassifier, PartLinear, horizontal_pyramid
from dinogrl_jax.models.resnet import Stages, Stem
from dinogrl_jax.ops.layers import accumulation_dtype, exact_products

MODALITIES = ("visible", "infrared")
FROZEN = ("dinov2",)  # top-level modules that no gradient, decay or statistic ever changes


class Output(NamedTuple):
    """v tracklets: b pairs in the order of the batch, visible before infrared in each pair."""

    embedding: dict[str, Float[Array, "v p d"]]  # by stream
    logits: dict[str, Float[Array, "v p ids"]]
    maps: Maps | None  # of v·t frames, before maps are zeroed; None without a gait stream


class AppearanceStream(nn.Module):
    """A stem for each modality, then one ResNet for both: a feature map of every tracklet."""

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, frames: Float[Array, "b m t h w 3"], modalities: tuple[str, ...], *, train: bool
    ) -> Float[Array, "v h4 w4 c"]:
        b, m, t = frames.shape[:3]
        stems = [
            Stem(self.config.resnet.width, self.dtype, name=f"stem_{modality}")(
                frames[:, i].reshape(b * t, *frames.shape[3:]), train=train
            )
            for i, modality in enumerate(modalities)
        ]
        # Side by side on the modality axis: the tracklets of a pair stay on one device.
        x = jnp.stack([x.reshape(b, t, *x.shape[1:]) for x in stems], axis=1)
        x = x.reshape(b * m * t, *x.shape[3:])
        resnet = self.config.resnet
        x = Stages(resnet.stages, resnet.width, self.dtype, name="stages")(x, train=train)
        return x.reshape(b * m, t, *x.shape[1:]).max(1)


class Model(nn.Module):
    """Frames of tracklets → embeddings and logits of their parts.

    config: the section `model` of `dinogrl_jax.config`. identities: how many the classifiers know.
    """

    config: ConfigDict
    identities: int

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "b m t h w 3"],
        modalities: tuple[str, ...] = MODALITIES,
        *,
        train: bool,
        kept_maps: Bool[Array, "v 2"] | None = None,
    ) -> Output:
        """Axis m of the frames is named by `modalities`; `kept_maps` zeroes maps in training."""
        with exact_products(self.config.compute_dtype):
            return self._output(frames, modalities, train, kept_maps)

    def _output(
        self, frames: Array, modalities: tuple[str, ...], train: bool, kept_maps: Array | None
    ) -> Output:
        c = self.config
        dtype = jnp.dtype(c.compute_dtype)
        features, maps = {}, None
        if "gait" in c.streams:
            b, m, t = frames.shape[:3]
            flat = frames.reshape(b * m * t, *frames.shape[3:])
            tokens = jax.lax.stop_gradient(DINOv2(c.dinov2, dtype, name="dinov2")(flat))
            maps = Branches(c.sasgl, dtype, name="branches")(tokens, train=train)
            fed = zeroed(maps, kept_maps, t) if train and kept_maps is not None else maps
            gait = GaitNetwork(
                c.resnet.stages, c.resnet.width, c.sasgl.pre_channels, dtype, name="gait"
            )
            x = gait(fed.denoising, fed.appearance, train=train)
            features["gait"] = x.reshape(b * m, t, *x.shape[1:]).max(1)
        if "appearance" in c.streams:
            stream = AppearanceStream(c, dtype, name="appearance")
            features["appearance"] = stream(frames, modalities, train=train)
        embedding = {name: self._parts(name, x) for name, x in features.items()}
        if c.pbmge:
            enhance = PBMGE(c.parts, name="pbmge")
            pair = enhance(embedding["gait"], embedding["appearance"], train=train)
            embedding = dict(zip(("gait", "appearance"), pair, strict=True))
        logits = {
            name: PartClassifier(self.identities, name=f"{name}_classifier")(x, train=train)
            for name, x in embedding.items()
        }
        return Output(embedding, logits, maps)

    def _parts(self, stream: str, x: Float[Array, "v h w c"]) -> Float[Array, "v p d"]:
        parts = horizontal_pyramid(x, self.config.parts)
        linear = PartLinear(self.config.embedding, x.dtype, name=f"{stream}_parts")
        return linear(parts).astype(accumulation_dtype(x.dtype))


def descriptor(output: Output) -> Float[Array, "v p2 d"]:
    """What is ranked: the parts of the gait stream, then those of the appearance stream."""
    return jnp.concatenate(list(output.embedding.values()), axis=1)


def part_names(config: ConfigDict) -> list[str]:
    """What each part of the descriptor is; config: the section `model` of the configuration."""
    bands = [f"band {i + 1} of {n}" for n in config.parts for i in range(n)]
    if config.pbmge:
        bands += [f"whole, enhanced by {n} bands" for n in config.parts[1:]]
    streams = [stream for stream in ("gait", "appearance") if stream in config.streams]
    return [f"{stream}, {band}" for stream in streams for band in bands]


def zeroed(maps: Maps, kept: Bool[Array, "v 2"], frames: int) -> Maps:
    """The maps with those of (tracklet, denoising or appearance) zeroed that are not kept."""
    kept = jnp.repeat(kept, frames, axis=0)[:, None, None, :]
    return maps._replace(
        denoising=jnp.where(kept[..., :1], maps.denoising, 0),
        appearance=jnp.where(kept[..., 1:], maps.appearance, 0),
    )


def drawn_kept_maps(key: Array, tracklets: int, share: float) -> Bool[Array, "v 2"]:
    """False for one map, by a fair coin, of each of round(share·v) distinct tracklets."""
    which, coin = jax.random.split(key)
    chosen = jax.random.permutation(which, tracklets)[: round(share * tracklets)]
    side = jax.random.bernoulli(coin, shape=chosen.shape).astype(int)
    return jnp.ones((tracklets, 2), bool).at[chosen, side].set(False)


def loss(
    config: ConfigDict, output: Output, labels: Int[Array, " v"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The training loss and its terms, unweighted, by name.

    config: the section `loss` of `dinogrl_jax.config`.
    """
    terms, total = {}, 0.0
    if output.maps is not None:
        gait = gait_terms(config, output.maps)
        total = sum(config[name] * value for name, value in gait.items())
        terms.update(gait)
    for stream, embedding in output.embedding.items():
        logits = config.identity_scale * output.logits[stream]
        identity = losses.smoothed_cross_entropy(logits, labels, config.label_smoothing)
        triplet = losses.batch_all_triplet(embedding, labels, config.triplet_margin)
        terms |= {f"identity_{stream}": identity, f"triplet_{stream}": triplet}
        total = total + identity + triplet
    return total, {"total": total, **terms}


def gait_terms(config: ConfigDict, maps: Maps) -> dict[str, Float[Array, ""]]:
    """The gait stream's own terms, named as their weights in the configuration."""
    mask = maps.mask
    if config.shape_connect_transposed:
        # Each class by itself: the sum of the classes is one everywhere.
        shape_connect = losses.sobel_smoothness(mask[..., :1])
    else:
        f, h, w, classes = mask.shape  # reinterpreted, not transposed, as in the published code
        mixed = mask.reshape(f, classes, h, w)
        shape_connect = losses.sobel_smoothness(jnp.moveaxis(mixed, 1, -1))
    return {
        "shape_connect": shape_connect,
        "mask_mse": maps.mask_mse,
        "part_connect": losses.sobel_smoothness(maps.denoising[..., :-1]),
        "part_diversity": losses.part_diversity(maps.denoising),
    }


def training_loss(
    model: Model, variables: dict, frames: Array, labels: Array, key: Array, config: ConfigDict
) -> tuple[Float[Array, ""], tuple[dict[str, Array], dict]]:
    """(loss, (terms, new batch statistics)) of b pairs whose labels are [b].

    config: all of `dinogrl_jax.config`. key: of this step's dropout and zeroed maps.
    """
    zero_key, dropout_key = jax.random.split(key)
    labels = jnp.repeat(labels, frames.shape[1])
    kept = drawn_kept_maps(zero_key, len(labels), config.model.sasgl.zeroed_tracklets)
    output, mutated = model.apply(
        variables,
        frames,
        train=True,
        kept_maps=kept,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
    )
    total, terms = loss(config.loss, output, labels)
    return total, (terms, mutated["batch_stats"])

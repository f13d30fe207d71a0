"""DinoGRL's training loss: two terms for each stream, and four of the gait stream's maps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Clips, Made, Variables
from dinogrl_jax.methods.dinogrl.model import Model, Output
from dinogrl_jax.methods.dinogrl.sasgl import Maps
from dinogrl_jax.models import losses


def training_loss(
    model: Model,
    variables: Variables,
    clips: Clips,
    labels: Int[Array, " b"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> tuple[Float[Array, ""], Made]:
    """The loss of b pairs. key: of this step's dropout and zeroed maps."""
    zero_key, dropout_key = jax.random.split(key)
    labels = jnp.repeat(labels, len(clips.modalities))
    kept = drawn_kept_maps(zero_key, len(labels), config.model.sasgl.zeroed_tracklets)
    output, changed = model.apply(
        variables,
        clips,
        train=True,
        kept_maps=kept,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
    )
    total, terms = loss(config.loss, output, labels)
    return total, Made(terms, changed)


def drawn_kept_maps(key: Array, tracklets: int, share: float) -> Bool[Array, "v 2"]:
    """False for one map, by a fair coin, of each of round(share·v) distinct tracklets."""
    which, coin = jax.random.split(key)
    chosen = jax.random.permutation(which, tracklets)[: round(share * tracklets)]
    side = jax.random.bernoulli(coin, shape=chosen.shape).astype(int)
    return jnp.ones((tracklets, 2), bool).at[chosen, side].set(False)


def loss(
    config: ConfigDict, output: Output, labels: Int[Array, " v"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its terms, unweighted, by name. config: the section `loss` of the settings."""
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
    """The gait stream's own terms, named as their weights in the section `loss`."""
    mask = maps.mask
    if config.shape_connect_transposed:
        # Each class by itself: the sum of the classes is one everywhere.
        shape_connect = sobel_smoothness(mask[..., :1])
    else:
        f, h, w, classes = mask.shape  # reinterpreted, not transposed, as in the published code
        mixed = mask.reshape(f, classes, h, w)
        shape_connect = sobel_smoothness(jnp.moveaxis(mixed, 1, -1))
    return {
        "shape_connect": shape_connect,
        "mask_mse": maps.mask_mse,
        "part_connect": sobel_smoothness(maps.denoising[..., :-1]),
        "part_diversity": part_diversity(maps.denoising),
    }


def sobel_smoothness(maps: Float[Array, "f h w c"]) -> Float[Array, ""]:
    """Mean absolute Sobel gradient of the channels' sum, (Σ|gx| + Σ|gy|)/(f·c·h·w).

    The kernels are unnormalised, the border is zero. The channels are summed before the absolute
    value, as the published code's convolution into one channel does.
    """
    summed = jnp.pad(maps.sum(-1), ((0, 0), (1, 1), (1, 1)))
    rows = summed[:, :-2] + 2 * summed[:, 1:-1] + summed[:, 2:]
    columns = summed[:, :, :-2] + 2 * summed[:, :, 1:-1] + summed[:, :, 2:]
    gx = rows[:, :, 2:] - rows[:, :, :-2]
    gy = columns[:, 2:] - columns[:, :-2]
    return (jnp.abs(gx).sum() + jnp.abs(gy).sum()) / maps.size


def part_diversity(denoising: Float[Array, "f h w c"]) -> Float[Array, ""]:
    """log₂ c − entropy of each frame's share of the channels, mean over frames.

    Source: BigGait's diversity loss; its 1e-6 stand in both places.
    """
    mass = denoising.sum((1, 2))
    share = mass / (mass.sum(-1, keepdims=True) + 1e-6)
    entropy = -(share * jnp.log2(share + 1e-6)).sum(-1)
    return (jnp.log2(denoising.shape[-1]) - entropy).mean()

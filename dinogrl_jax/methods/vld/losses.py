"""VLD's training loss: cross-entropies of classifiers and of texts, and weighted triplets."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Clips, Made, Variables
from dinogrl_jax.methods.vld.model import Model, Output
from dinogrl_jax.models import losses
from dinogrl_jax.models.losses import euclidean_distances

LEAST_SUM = 1e-6  # added to the sum of an anchor's weights


def training_loss(
    model: Model,
    variables: Variables,
    clips: Clips,
    labels: Int[Array, " b"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> tuple[Float[Array, ""], Made]:
    """The loss of b pairs; nothing of it is random."""
    del key
    output, changed = model.apply(variables, clips, train=True, mutable=["batch_stats"])
    total, terms = loss(config.loss, output, jnp.repeat(labels, len(clips.modalities)))
    return total, Made(terms, changed)


def loss(
    config: ConfigDict, output: Output, labels: Int[Array, " v"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its terms, unweighted, by name. config: the section `loss` of the settings.

    Features of the hub and logits of texts have weights; those of the image tower count once.
    """
    terms = {
        f"identity_{name}": losses.smoothed_cross_entropy(x[:, None], labels, 0.0)
        for name, x in output.logits.items()
    } | {
        f"triplet_{name}": weighted_triplet(x, labels, config.stable_softmin)
        for name, x in output.features.items()
    }
    weights = loss_weights(config)
    total = sum(weights.get(name, 1.0) * term for name, term in terms.items())
    return total, {"total": total, **terms}


def loss_weights(config: ConfigDict) -> dict[str, float]:
    """The weights of terms by name; those of others are 1. config: the section `loss`."""
    return {
        "identity_text": config.text,
        "identity_hub": config.hub_identity,
        "triplet_hub": config.hub_triplet,
    }


def weighted_triplet(
    x: Float[Array, "v d"], labels: Int[Array, " v"], stable: bool = False
) -> Float[Array, ""]:
    """WRT: mean of log(1 + exp(A − N)); A is an anchor's weighted distance to its own, N to others.

    The far ones of its own (it is one of them) and the near ones of the others weigh more, by
    exponentials of distances. Those of the others are not shifted, as in the published code, and
    beside LEAST_SUM they vanish where all distances are large: N does too, and the loss becomes A.
    stable: they are shifted by the least, so that the weights always sum to 1.

    Source: weighted regularised triplet, AGW (arXiv 2001.04193).
    """
    distance = euclidean_distances(x)
    same = labels[:, None] == labels[None, :]
    own, other = jnp.where(same, distance, 0), jnp.where(same, 0, distance)
    farthest = own.max(1, keepdims=True)
    nearest = 0.0
    if stable:
        nearest = distance.min(1, where=~same, initial=distance.max(), keepdims=True)
    far = jnp.where(same, jnp.exp(own - farthest), 0)
    near = jnp.where(same, 0, jnp.exp(jnp.where(same, 0, nearest - distance)))
    apart = weighted_mean(other, near) - weighted_mean(own, far)
    return jax.nn.softplus(-apart).mean()


def weighted_mean(x: Float[Array, "v w"], weight: Float[Array, "v w"]) -> Float[Array, " v"]:
    return (x * weight).sum(1) / (weight.sum(1) + LEAST_SUM)

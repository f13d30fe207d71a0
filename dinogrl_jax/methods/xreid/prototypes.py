"""X-ReID's prototypes: a vector of each identity and modality, which both modalities look for."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.models.losses import smoothed_cross_entropy
from dinogrl_jax.models.parts import l2_normalised

ABSENT = 1e6  # so far below any cosine that its exponential is 0


def contrast(
    x: Float[Array, "v d"],
    labels: Int[Array, " v"],
    memory: Float[Array, "ids d"],
    config: ConfigDict,
) -> Float[Array, ""]:
    """Cross-entropy of the cosines with the prototypes of a modality, which have no gradient.

    config: the section `model.prototypes`, which says whether these are all prototypes, or those of
    the identities in the batch.
    """
    cosines = l2_normalised(x, axis=1) @ jax.lax.stop_gradient(memory).T
    if config.against == "batch":
        there = jnp.zeros(len(memory), bool).at[labels].set(True)
        cosines = jnp.where(there, cosines, -ABSENT)
    return smoothed_cross_entropy((cosines / config.temperature)[:, None], labels, 0.0)


def hardest(
    x: Float[Array, "v d"],
    labels: Int[Array, " v"],
    memory: Float[Array, "ids d"],
    candidates: Bool[Array, " v"],
) -> Bool[Array, " v"]:
    """Which tracklet of each label in a batch is the least like its prototype, the first of equals.

    x: normalised. candidates: which may be; where a label has none, none is.
    """
    same = labels[:, None] == labels[None, :]
    score = jnp.where(candidates, (x * memory[labels]).sum(1), jnp.inf)
    least = jnp.where(same, score[None, :], jnp.inf).argmin(1)
    return candidates & (least == jnp.arange(len(x)))


def updated(
    memory: Float[Array, "ids d"],
    x: Float[Array, "v d"],
    labels: Int[Array, " v"],
    kept: float,
    candidates: Bool[Array, " v"],
) -> Float[Array, "ids d"]:
    """The prototypes after a batch: each of its labels goes towards its hardest tracklet.

    kept: share of the old one, in the sum that is normalised then.
    """
    x = jax.lax.stop_gradient(l2_normalised(x, axis=1))
    moved = l2_normalised(kept * memory[labels] + (1 - kept) * x, axis=1)
    nowhere = len(memory)
    rows = jnp.where(hardest(x, labels, memory, candidates), labels, nowhere)
    return memory.at[rows].set(moved.astype(memory.dtype), mode="drop")

"""Losses that methods share: pure functions of arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TRIPLES = 2**22  # that are in memory at once
LEAST_SQUARED = 1e-12  # of a distance


def smoothed_cross_entropy(
    logits: Float[Array, "v p ids"], labels: Int[Array, " v"], smoothing: float
) -> Float[Array, ""]:
    """Cross-entropy against (1 − s)·one-hot + s/ids, mean over tracklets and parts.

    Source: CrossEntropyLoss of OpenGait with label smoothing.
    """
    log_probability = jax.nn.log_softmax(logits, axis=-1)
    hit = jnp.take_along_axis(log_probability, labels[:, None, None], axis=-1)[..., 0]
    return -((1 - smoothing) * hit + smoothing * log_probability.mean(-1)).mean()


def part_distances(x: Float[Array, "v p d"]) -> Float[Array, "p v v"]:
    """Euclidean distances between all tracklets, part by part; the diagonal is zero.

    The derivative at distance zero is taken as zero.
    """
    x = x.swapaxes(0, 1)
    square = jnp.square(x).sum(-1)
    product = jnp.einsum("pad,pbd->pab", x, x, precision="highest")
    squared = jnp.maximum(square[:, :, None] + square[:, None, :] - 2 * product, 0)
    squared = jnp.where(jnp.eye(x.shape[1], dtype=bool), 0, squared)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def euclidean_distances(x: Float[Array, "v d"]) -> Float[Array, "v v"]:
    """Distances between all tracklets, at least 1e-6, which is that of each to itself.

    Rounding would make up to 0.05 of a float32 distance to itself, and a gradient, which is zero.
    """
    square = jnp.square(x).sum(-1)
    product = jnp.einsum("ad,bd->ab", x, x, precision="highest")
    squared = square[:, None] + square[None, :] - 2 * product
    squared = jnp.where(jnp.eye(len(x), dtype=bool), 0, squared)
    return jnp.sqrt(jnp.maximum(squared, LEAST_SQUARED))


def batch_all_triplet(
    x: Float[Array, "v p d"], labels: Int[Array, " v"], margin: float
) -> Float[Array, ""]:
    """Hinge max(0, d⁺ − d⁻ + margin) over every (anchor, positive, negative).

    Positives include the anchor itself. Mean over the non-zero hinges of a part (0 if there are
    none), then over parts.

    Source: "In Defense of the Triplet Loss", batch all; TripletLoss of OpenGait.
    """
    same = labels[:, None] == labels[None, :]
    triple = same[:, :, None] & ~same[:, None, :]

    def of_part(distance: Float[Array, "v v"]) -> Float[Array, ""]:
        hinge = distance[:, :, None] - distance[:, None, :] + margin
        hinge = jnp.where(triple, jnp.maximum(hinge, 0), 0)
        return hinge.sum() / jnp.maximum((hinge > 0).sum(), 1)

    # As many parts at once as have TRIPLES in all: v³ for every part would not fit large batches.
    at_once = min(max(TRIPLES // len(labels) ** 3, 1), x.shape[1])
    of_part = jax.checkpoint(of_part, prevent_cse=False)
    return jax.lax.map(of_part, part_distances(x), batch_size=at_once).mean()

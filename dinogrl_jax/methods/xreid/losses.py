"""X-ReID's training loss: cross-entropies, hardest triplets, and the contrast with prototypes."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Clips, Made, Variables
from dinogrl_jax.methods.xreid.model import Model, Output, prototype_feature
from dinogrl_jax.methods.xreid.prototypes import contrast, updated
from dinogrl_jax.models.losses import euclidean_distances, smoothed_cross_entropy

Terms = dict[str, Float[Array, ""]]


def training_loss(
    model: Model,
    variables: Variables,
    clips: Clips,
    labels: Int[Array, " b"],
    key: Key[Array, ""],
    config: ConfigDict,
) -> tuple[Float[Array, ""], Made]:
    """The loss of b pairs; nothing of it is random. Prototypes change behind it."""
    del key
    output, changed = model.apply(variables, clips, train=True, mutable=["batch_stats"])
    labels = jnp.repeat(labels, len(clips.modalities))
    memory = variables.get("memory", {})
    total, terms = loss(config, output, labels, memory)
    if memory:
        infrared = jnp.tile(
            jnp.array([m == "infrared" for m in clips.modalities]), len(clips.frames)
        )
        after = moved_prototypes(config.model.prototypes, output, labels, memory, infrared)
        changed = {**changed, "memory": after}
    return total, Made(terms, changed)


def loss(
    config: ConfigDict, output: Output, labels: Int[Array, " v"], memory: Variables
) -> tuple[Float[Array, ""], Terms]:
    """The loss and its terms, unweighted, by name; config: the whole configuration.

    Cross-entropies of frames are means over them, and count for one of a tracklet's frames only.
    """
    c = config.loss
    terms, weights = {}, {}
    for name, x in output.logits.items():
        of_rows = jnp.repeat(labels, len(x) // len(labels))
        terms[f"identity_{name}"] = smoothed_cross_entropy(x[:, None], of_rows, 0.0)
        of_frames = name.endswith("frames")
        weights[f"identity_{name}"] = c.frames / config.data.frames if of_frames else c.identity
    for name, x in output.features.items():
        terms[f"triplet_{name}"] = hardest_triplet(x, labels, c.triplet_margin)
        weights[f"triplet_{name}"] = c.triplet
    for modality, prototypes in memory.items():
        x = prototype_feature(output.normed, config.model.prototypes)
        terms[f"contrast_{modality}"] = contrast(x, labels, prototypes, config.model.prototypes)
        weights[f"contrast_{modality}"] = c.contrast
    for name, x in output.constraints.items():
        terms[f"constraint_{name}"], weights[f"constraint_{name}"] = x, c.constraint
    total = sum(weights[name] * term for name, term in terms.items())
    return total, {"total": total, **terms}


def moved_prototypes(
    config: ConfigDict,
    output: Output,
    labels: Int[Array, " v"],
    memory: Variables,
    infrared: Bool[Array, " v"],
) -> dict[str, Float[Array, "ids d"]]:
    """The prototypes of both modalities after a batch; config: the section `model.prototypes`.

    Either goes towards the hardest tracklet of both modalities or, as the paper has it, of the
    other one.
    """
    other = {"visible": infrared, "infrared": ~infrared}
    return {
        modality: updated(
            prototypes,
            prototype_feature(output.normed, config),
            labels,
            config.kept,
            other[modality] if config.update == "other" else jnp.ones_like(infrared),
        )
        for modality, prototypes in memory.items()
    }


def hardest_triplet(
    x: Float[Array, "v d"], labels: Int[Array, " v"], margin: float
) -> Float[Array, ""]:
    """Mean of max(0, margin + A − N): A is an anchor's largest distance to its own, N the least.

    N is to others; the anchor is one of its own. Of equally far ones the first has the gradient. An
    anchor without others has no triplet.

    Source: "In Defense of the Triplet Loss", batch hard (arXiv 1703.07737).
    """
    distance = euclidean_distances(x)
    same = labels[:, None] == labels[None, :]
    farthest = jnp.where(same, distance, -jnp.inf).argmax(1)
    nearest = jnp.where(same, jnp.inf, distance).argmin(1)
    rows = jnp.arange(len(x))
    hinge = jnp.maximum(0, margin + distance[rows, farthest] - distance[rows, nearest])
    return jnp.where(same.all(1), 0, hinge).mean()

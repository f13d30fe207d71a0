"""X-ReID: cross-modal prototypes and interactions of frames (arXiv 2511.17964).

CLIP's image tower reads frames, whose class tokens start with a vector of their camera. Beside the
mean over frames of the class token and of its projection there is that of the interactions of
frames (SII; as in the paper LII and, in training, CII as well), which read the tower's tokens and
do not train it. Norms in front of classifiers give what is ranked. In training each identity has a
prototype in either modality.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.methods.contract import Clips, Facts, Variables
from dinogrl_jax.methods.xreid.cameras import Cameras
from dinogrl_jax.methods.xreid.cii import CII, constraint
from dinogrl_jax.methods.xreid.sii import LII, SII, with_shifted_patches
from dinogrl_jax.models.clip import ImageTower
from dinogrl_jax.models.layers import BatchNorm
from dinogrl_jax.models.parts import l2_normalised
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.remat import remat

DESCRIPTORS = {  # published variants → the features that they have
    "V0": ("class", "projected", "interactions"),
    "V1": ("class",),
    "V2": ("class", "interactions"),
    "V3": ("interactions",),
}


class Output(NamedTuple):
    """v tracklets: b pairs in the order of the batch, visible before infrared in each pair.

    Features are means over frames: "class", of the class token; "projected", of its place in the
    space of texts; "interactions", of SII, of LII, or of both fused. `normed` has the same behind
    their norms. Logits are of tracklets, "clip" of "class" and "projected" together and
    "interactions", and of v·t frames, "clip_frames" and "interactions_frames". Constraints are
    CII's, of "sii" and "lii". There are neither in an evaluation.
    """

    features: dict[str, Float[Array, "v _"]]
    normed: dict[str, Float[Array, "v _"]]
    logits: dict[str, Float[Array, "_ ids"]]
    constraints: dict[str, Float[Array, ""]]


class Frames(NamedTuple):
    """What there is of frames, tracklet by tracklet."""

    features: dict[str, Float[Array, "f _"]]  # by the names of Output.features
    interactions: dict[str, Float[Array, "f c"]]  # "sii" and "lii"
    patches: Float[Array, "f n c"] | None  # that they are of


class Model(nn.Module):
    """Clips → features and logits; and the pass that makes prototypes."""

    config: ConfigDict
    facts: Facts

    def setup(self) -> None:
        c, ids = self.config.model, self.facts.identities
        dtype = jnp.dtype(c.compute_dtype)
        width, embedding = c.clip.width, c.clip.embedding
        self.image = ImageTower(c.clip, dtype, c.remat)
        unknown = self.config.evaluation.unknown_camera
        self.cameras = Cameras(self.facts.cameras or (0,), width, c.cameras.weight, unknown)
        self.norm_class, self.norm_class_frames = BatchNorm(width), BatchNorm(width)
        self.norm_projected = BatchNorm(embedding)
        self.norm_projected_frames = BatchNorm(embedding)
        self.classifier, self.classifier_frames = Classifier(ids), Classifier(ids)
        if c.sii.on:
            self.sii = SII(c.sii.depth, c.clip.heads, c.sii.shift, dtype, c.remat)
        if c.lii.on:
            self.lii = LII(c.clip.heads, c.lii.stride, c.lii.border, dtype, c.remat)
        if interacts(c):
            self.norm_interactions = BatchNorm(width)
            self.norm_interactions_frames = BatchNorm(width)
            self.classifier_interactions = Classifier(ids)
        if c.cii.on:
            block, of = remat(CII, c.remat), ("both",) if c.cii.shared else MODALITIES
            names = [name for name in ("sii", "lii") if c[name].on]
            self.cii = {f"{x}_{m}": block(c.clip.heads, dtype) for x in names for m in of}
        if c.prototypes.on:
            channels = embedding if c.prototypes.feature == "projected" else width + embedding
            empty = partial(jnp.zeros, (ids, channels))
            self.memory = {m: self.variable("memory", m, empty) for m in MODALITIES}

    def __call__(self, clips: Clips, *, train: bool) -> Output:
        frames, t = self.frames(clips, with_cameras=True), clips.frames.shape[2]
        features = {name: mean_over_frames(x, t) for name, x in frames.features.items()}
        normed = {
            "class": self.norm_class(features["class"], train=train),
            "projected": self.norm_projected(features["projected"], train=train),
        }
        if "interactions" in features:
            normed["interactions"] = self.norm_interactions(features["interactions"], train=train)
        if not (train or self.is_initializing()):
            return Output(features, normed, {}, {})
        both = [
            self.norm_class_frames(frames.features["class"], train=train),
            self.norm_projected_frames(frames.features["projected"], train=train),
        ]
        logits = {
            "clip": self.classifier(joined(normed)),
            "clip_frames": self.classifier_frames(jnp.concatenate(both, axis=1)),
        }
        if "interactions" in features:
            # The published code has a classifier of frames as well, and does not use it.
            classifier, own = self.classifier_interactions, frames.features["interactions"]
            logits["interactions"] = classifier(normed["interactions"])
            own = self.norm_interactions_frames(own, train=train)
            logits["interactions_frames"] = classifier(own)
        constraints = self.constraints(frames, clips) if self.config.model.cii.on else {}
        return Output(features, normed, logits, constraints)

    def frames(self, clips: Clips, with_cameras: bool, interact: bool = True) -> Frames:
        """The features of all frames, at least in float32."""
        c = self.config.model
        b, m, t = clips.frames.shape[:3]
        frames = clips.frames.reshape(b * m * t, *clips.frames.shape[3:])
        cameras = jnp.asarray(clips.camera).reshape(b * m)
        own = self.cameras(cameras) if with_cameras else None
        offset = None if own is None else jnp.repeat(own, t, axis=0)
        tokens = self.image(frames, class_offset=offset).last
        interact = interact and interacts(c)
        tokens = self.image.final_norm(tokens if interact else tokens[:, :1])
        features = {"class": tokens[:, 0], "projected": self.image.projected(tokens[:, 0])}
        found, patches = {}, None
        if interact:
            tokens = jax.lax.stop_gradient(tokens) if c.sii.detach else tokens
            found, patches = self.interactions(tokens, t), tokens[:, 1:]
            features["interactions"] = fused(list(found.values()), c.fusion)
        features = {k: x.astype(accumulation_dtype(x.dtype)) for k, x in features.items()}
        return Frames(features, found, patches)

    def interactions(self, tokens: Float[Array, "f n c"], t: int) -> dict[str, Array]:
        """What the interactions make of tokens, the class token first."""
        c, found = self.config.model, {}
        if c.sii.on:
            found["sii"] = self.sii(tokens, t)
        if c.lii.on:
            shifted = with_shifted_patches(tokens, t, c.sii.shift) if c.lii.on_shifted else tokens
            found["lii"] = self.lii(shifted, t)
        return found

    def constraints(self, frames: Frames, clips: Clips) -> dict[str, Float[Array, ""]]:
        """How far what either tracklet of a pair asks is from what it finds in the other's frames.

        It asks with its mean over frames; what it finds is a mean over frames as well.
        """
        c = self.config.model.cii
        b, m, t = clips.frames.shape[:3]
        patches = frames.patches.reshape(b, m, t, *frames.patches.shape[1:])
        found = {}
        for name, x in frames.interactions.items():
            asking = mean_over_frames(x, t).reshape(b, m, -1)
            answers = []
            for i, modality in enumerate(clips.modalities):
                block = self.cii[f"{name}_{'both' if c.shared else modality}"]
                other = patches[:, 1 - i].reshape(b * t, *patches.shape[3:])
                answer = block(jnp.repeat(asking[:, i], t, axis=0), other)
                answers.append(mean_over_frames(answer, t))
            found[name] = constraint(asking, jnp.stack(answers, axis=1), c.detach)
        return {k: x.astype(accumulation_dtype(x.dtype)) for k, x in found.items()}

    def tracklet_prototypes(
        self, clips: Clips, *, train: bool, valid: Bool[Array, " v"]
    ) -> Float[Array, "v d"]:
        """What a prototype is the mean of; train: by statistics of the batch where it is valid."""
        c, t = self.config.model.prototypes, clips.frames.shape[2]
        of_frames = self.frames(clips, c.cameras, interact=False).features
        norms = {"class": self.norm_class, "projected": self.norm_projected}
        x = {name: mean_over_frames(of_frames[name], t) for name in norms}
        normed = {name: norm(x[name], train=train, mask=valid) for name, norm in norms.items()}
        return prototype_feature(normed, c)

    # The pass before an epoch, as `contract.Sweep` has it.

    @nn.nowrap
    def begin_prototypes(self, variables: Variables) -> dict:
        """Sums over the tracklets of each identity and modality, and their numbers."""
        sums = jax.tree.map(jnp.zeros_like, dict(variables["memory"]))
        return {"sums": sums, "counts": {m: x[:, 0] for m, x in sums.items()}}

    @nn.nowrap
    def add_by_batch(self, variables: Variables, gathered: dict, *batch) -> tuple[dict, dict]:
        """Normalised by the batch's statistics, which the running ones follow."""
        return self.add(variables, gathered, *batch, train=True)

    @nn.nowrap
    def add_by_running(self, variables: Variables, gathered: dict, *batch) -> tuple[dict, dict]:
        """Normalised by the running statistics."""
        return self.add(variables, gathered, *batch, train=False)

    @nn.nowrap
    def add(
        self,
        variables: Variables,
        gathered: dict,
        clips: Clips,
        labels: Int[Array, " v"],
        valid: Bool[Array, " v"],
        *,
        train: bool,
    ) -> tuple[dict, dict]:
        x, changed = self.apply(
            variables,
            clips,
            train=train,
            valid=valid,
            method="tracklet_prototypes",
            mutable=["batch_stats"] if train else [],
        )
        (modality,) = clips.modalities
        sums, counts = gathered["sums"][modality], gathered["counts"][modality]
        weight = valid.astype(counts.dtype)
        added = jnp.where(valid[:, None], x, 0).astype(sums.dtype)
        return dict(changed), {
            "sums": {**gathered["sums"], modality: sums.at[labels].add(added)},
            "counts": {**gathered["counts"], modality: counts.at[labels].add(weight)},
        }

    @nn.nowrap
    def end_prototypes(self, variables: Variables, gathered: dict) -> dict:
        """The normalised mean of each identity and modality."""
        means = {
            m: x / jnp.maximum(gathered["counts"][m], 1)[:, None]
            for m, x in gathered["sums"].items()
        }
        return {"memory": {m: l2_normalised(x, axis=1) for m, x in means.items()}}


class Classifier(nn.Module):
    """A linear layer without bias: logits of identities."""

    identities: int

    @nn.compact
    def __call__(self, x: Float[Array, "v d"]) -> Float[Array, "v ids"]:
        init = nn.initializers.normal(0.001)
        return x @ self.param("kernel", init, (x.shape[1], self.identities))


def mean_over_frames(x: Float[Array, "f d"], t: int) -> Float[Array, "v d"]:
    """The mean over the t frames of each tracklet."""
    return x.reshape(len(x) // t, t, -1).mean(1)


def fused(x: Sequence[Float[Array, "f c"]], fusion: str) -> Float[Array, "f c"]:
    """One or two interactions as one: their mean or their sum."""
    return sum(x) / (len(x) if fusion == "mean" else 1)


def joined(normed: dict[str, Float[Array, "v _"]]) -> Float[Array, "v d"]:
    """The features of the image tower side by side."""
    return jnp.concatenate([normed["class"], normed["projected"]], axis=1)


def prototype_feature(
    normed: dict[str, Float[Array, "v _"]], config: ConfigDict
) -> Float[Array, "v d"]:
    """What is compared with prototypes; config: the section `model.prototypes`."""
    return normed["projected"] if config.feature == "projected" else joined(normed)


def interacts(config: ConfigDict) -> bool:
    """Whether there are interactions of frames; config: the section `model`."""
    return config.sii.on or config.lii.on


def descriptor(output: Output, config: ConfigDict) -> Float[Array, "v p d"]:
    """What is ranked: the normed features of a published variant, one after the other."""
    found = [output.normed[name] for name in descriptor_features(config)]
    return jnp.concatenate(found, axis=1)[:, None]


def descriptor_variants(config: ConfigDict) -> dict[str, list[int]]:
    """The channels of each published variant whose features the descriptor has."""
    clip, whole = config.model.clip, descriptor_features(config)
    widths = {"class": clip.width, "projected": clip.embedding, "interactions": clip.width}
    channels = [name for name in whole for _ in range(widths[name])]
    found = {variant: descriptor_features(config, variant) for variant in DESCRIPTORS}
    return {
        variant: [i for i, name in enumerate(channels) if name in names]
        for variant, names in found.items()
        if names and set(names) <= set(whole)
    }


def descriptor_features(config: ConfigDict, variant: str = "") -> list[str]:
    """The features of a variant, without "" of the configured one, that the model has."""
    names = DESCRIPTORS[variant or config.evaluation.descriptor]
    return [name for name in names if name != "interactions" or interacts(config.model)]


def part_names(config: ConfigDict) -> list[str]:
    """There is one row, of all features together."""
    return ["whole"]

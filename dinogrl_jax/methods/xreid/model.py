"""X-ReID: cross-modal prototypes and interactions of frames (arXiv 2511.17964), as released.

CLIP's image tower reads frames, whose class tokens start with a vector of their camera. Beside the
mean over frames of the class token and of its projection there is that of the interactions of
frames (`sii`), which read the tower's tokens and do not train it. Norms in front of classifiers
give what is ranked. In training each identity has a prototype in either modality.
"""

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
from dinogrl_jax.methods.xreid.sii import SII
from dinogrl_jax.models.clip import ImageTower
from dinogrl_jax.models.layers import BatchNorm
from dinogrl_jax.models.parts import l2_normalised
from dinogrl_jax.ops.precision import accumulation_dtype

DESCRIPTORS = {  # published variants → the features that they have
    "V0": ("class", "projected", "sii"),
    "V1": ("class",),
    "V2": ("class", "sii"),
    "V3": ("sii",),
}


class Output(NamedTuple):
    """v tracklets: b pairs in the order of the batch, visible before infrared in each pair.

    Features are means over frames: "class", of the class token; "projected", of its place in the
    space of texts; "sii", of the interactions. `normed` has the same behind their norms. Logits are
    of tracklets, "clip" of "class" and "projected" together and "sii", and of v·t frames,
    "clip_frames" and "sii_frames"; there are none in an evaluation.
    """

    features: dict[str, Float[Array, "v _"]]
    normed: dict[str, Float[Array, "v _"]]
    logits: dict[str, Float[Array, "_ ids"]]


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
            self.norm_sii, self.norm_sii_frames = BatchNorm(width), BatchNorm(width)
            self.classifier_sii = Classifier(ids)
        if self.config.model.prototypes.on:
            empty = partial(jnp.zeros, (ids, width + embedding))
            self.memory = {m: self.variable("memory", m, empty) for m in MODALITIES}

    def __call__(self, clips: Clips, *, train: bool) -> Output:
        of_frames = self.frame_features(clips, with_cameras=True)
        t = clips.frames.shape[2]
        features = {name: mean_over_frames(x, t) for name, x in of_frames.items()}
        norms = {"class": self.norm_class, "projected": self.norm_projected}
        norms |= {"sii": self.norm_sii} if self.config.model.sii.on else {}
        normed = {name: norm(features[name], train=train) for name, norm in norms.items()}
        if not (train or self.is_initializing()):
            return Output(features, normed, {})
        found = [
            self.norm_class_frames(of_frames["class"], train=train),
            self.norm_projected_frames(of_frames["projected"], train=train),
        ]
        output = Output(features, normed, {})
        logits = {
            "clip": self.classifier(prototype_feature(output)),
            "clip_frames": self.classifier_frames(jnp.concatenate(found, axis=1)),
        }
        if self.config.model.sii.on:
            logits["sii"] = self.classifier_sii(normed["sii"])
            # The published code has a classifier of frames as well, and does not use it.
            frames = self.norm_sii_frames(of_frames["sii"], train=train)
            logits["sii_frames"] = self.classifier_sii(frames)
        return output._replace(logits=logits)

    def frame_features(
        self, clips: Clips, with_cameras: bool, interact: bool = True
    ) -> dict[str, Float[Array, "f _"]]:
        """The features of all frames, tracklet by tracklet, at least in float32."""
        c = self.config.model
        b, m, t = clips.frames.shape[:3]
        frames = clips.frames.reshape(b * m * t, *clips.frames.shape[3:])
        cameras = jnp.asarray(clips.camera).reshape(b * m)
        own = self.cameras(cameras) if with_cameras else None
        offset = None if own is None else jnp.repeat(own, t, axis=0)
        tokens = self.image(frames, class_offset=offset).last
        interact = interact and c.sii.on
        tokens = self.image.final_norm(tokens if interact else tokens[:, :1])
        found = {"class": tokens[:, 0], "projected": self.image.projected(tokens[:, 0])}
        if interact:
            found["sii"] = self.sii(jax.lax.stop_gradient(tokens) if c.sii.detach else tokens, t)
        return {name: x.astype(accumulation_dtype(x.dtype)) for name, x in found.items()}

    def tracklet_prototypes(
        self, clips: Clips, *, train: bool, valid: Bool[Array, " v"]
    ) -> Float[Array, "v d"]:
        """What a prototype is the mean of; train: by statistics of the batch where it is valid."""
        of_frames = self.frame_features(clips, self.config.model.prototypes.cameras, interact=False)
        x = {name: mean_over_frames(x, clips.frames.shape[2]) for name, x in of_frames.items()}
        norms = {"class": self.norm_class, "projected": self.norm_projected}
        normed = {name: norm(x[name], train=train, mask=valid) for name, norm in norms.items()}
        return prototype_feature(Output(x, normed, {}))

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


def prototype_feature(output: Output) -> Float[Array, "v d"]:
    """What is compared with prototypes, and what the first classifier reads."""
    return jnp.concatenate([output.normed["class"], output.normed["projected"]], axis=1)


def descriptor(output: Output, config: ConfigDict) -> Float[Array, "v p d"]:
    """What is ranked: the normed features of a published variant, one after the other."""
    names = DESCRIPTORS[config.evaluation.descriptor]
    found = [output.normed[name] for name in names if name in output.normed]
    return jnp.concatenate(found, axis=1)[:, None]


def part_names(config: ConfigDict) -> list[str]:
    """There is one row, of all features together."""
    return ["whole"]

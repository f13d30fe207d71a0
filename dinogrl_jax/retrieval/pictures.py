"""Pictures of what a model sees in tracklets, for the log and for the report."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.pipeline import evaluation_batches
from dinogrl_jax.data.tracklets import MODALITIES, Tracklet
from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods.contract import Clips, Picture
from dinogrl_jax.ops import forms

SHOWN = 8  # pairs of a batch

Pictures = Sequence[UInt8[np.ndarray, "h w 3"]]


def make_pictures(picture: Picture, model: nn.Module, config: ConfigDict) -> Callable:
    """(variables, tracklets) → a picture of each tracklet, all in the same colours.

    Of a tracklet of several clips it shows the first.
    """

    def compute(variables: Mapping, clips: Clips) -> object:
        with forms.configured(config):
            return picture.compute(model, variables, clips)

    jitted = jax.jit(compute, compiler_options=compiler_options())

    def pictures(variables: Mapping, tracklets: Sequence[Tracklet]) -> Pictures:
        found = []
        with evaluation_batches(tracklets, config) as batches:
            for batch in batches:
                clips = Clips(batch.frames, batch.cameras[:, None], (batch.modality,))
                seen = batch.positions, batch.frames[:, 0], jitted(variables, clips)
                found.append(jax.tree.map(lambda x, kept=batch.valid: np.asarray(x)[kept], seen))
        positions, frames, arrays = jax.tree.map(lambda *x: np.concatenate(x), *found)
        _, first = np.unique(positions, return_index=True)
        return picture.draw(*jax.tree.map(lambda x: x[first], (frames, arrays)))

    return pictures


def picture_of_modalities(
    pictures: Callable, variables: Mapping, tracklets: Sequence[Tracklet]
) -> UInt8[np.ndarray, "h w 3"]:
    """The first tracklet of each modality, side by side; pictures: what `make_pictures` returns."""
    seen = {t.modality: t for t in reversed(tracklets)}
    first = [seen[modality] for modality in MODALITIES if modality in seen]
    return np.concatenate(pictures(variables, first), axis=1)


def picture_of_batch(frames: Float32[np.ndarray, "b m t h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A batch's frames as they are trained with: a row for each of its first pairs.

    The clips of a pair stand side by side, the visible one first.
    """
    rows = np.clip(frames[:SHOWN] * DEVIATION + MEAN, 0, 1)
    b, m, t, h, w, _ = rows.shape
    grid = rows.reshape(b, m * t, h, w, 3).swapaxes(1, 2).reshape(b * h, m * t * w, 3)
    return np.round(255 * grid).astype(np.uint8)

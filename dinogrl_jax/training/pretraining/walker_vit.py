"""A small DINOv2 of synthetic walkers: a transformer that outlines people in both modalities.

Like DINOv2 it then knows persons from background, and no identity of a demo.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.training.pretraining.steps import trained_params
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.published import dinov2_rules

SEED = 20_000  # of people that no demo uses


class Outliner(nn.Module):
    """Frames → a logit of the silhouette for every pixel, linear in the last tokens.

    config: the section `model.dinov2`.
    """

    config: ConfigDict

    @nn.compact
    def __call__(self, frames: Float[Array, "f h w 3"]) -> Float[Array, "f h w"]:
        patch = self.config.patch
        tokens = DINOv2(self.config, jnp.dtype("float32"), name="dinov2")(frames).last
        logits = nn.Dense(patch**2, name="outline")(tokens)
        f, h, w, _ = logits.shape
        logits = logits.reshape(f, h, w, patch, patch).swapaxes(2, 3)
        return logits.reshape(f, h * patch, w * patch)


def trained_state(
    config: ConfigDict, identities: int = 300, steps: int = 700, batch: int = 96
) -> dict[str, np.ndarray]:
    """The state dict, in DINOv2's naming, of the transformer in the section `model.dinov2`.

    batch: frames.
    """
    size = config.model.dinov2
    frames, outlines = frames_and_outlines(identities, size.height, size.width)
    model = Outliner(size)
    params = model.init(jax.random.key(SEED), jnp.zeros((1, size.height, size.width, 3)))["params"]

    def loss(params, key, frames, outlines):
        x, y = augmented_frames(key, frames, outlines)
        return optax.sigmoid_binary_cross_entropy(model.apply({"params": params}, x), y).mean()

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(SEED)
        while True:
            rows = rng.integers(len(frames), size=batch)
            yield frames[rows], outlines[rows]

    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 2e-3), weight_decay=0.02)
    params = trained_params(params, loss, batches(), steps, optimizer, SEED)
    return to_state({"params": params["dinov2"]}, dinov2_rules(size.embedding))[0]


def frames_and_outlines(
    identities: int, height: int, width: int
) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]:
    """Frames of generated people and their silhouettes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "people"
        count = {"train_identities": identities, "test_identities": 1}
        clips = {"tracklets_per_identity": 2, "frames_per_tracklet": 12}
        size = {"height": height, "width": width}
        synthetic.generate(root, seed=SEED, silhouettes=True, **size, **count, **clips)
        paths = sorted((root / "Train").rglob("*.jpg"))
        outlines = [root / "silhouettes" / p.relative_to(root).with_suffix(".png") for p in paths]
        frames = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])
        return frames, np.stack([np.asarray(Image.open(p).convert("L")) > 127 for p in outlines])


def augmented_frames(
    key: Array, frames: Array, outlines: Array
) -> tuple[Float[Array, "f h w 3"], Bool[Array, "f h w"]]:
    """Normalised frames, mirrored and shifted with their outlines, half of them in grey."""
    mirror, grey, shift = jax.random.split(key, 3)
    flip = jax.random.bernoulli(mirror, shape=(len(frames), 1, 1))
    outlines = jnp.where(flip, outlines[:, :, ::-1], outlines)
    frames = jnp.where(flip[..., None], frames[:, :, ::-1], frames) / 255.0
    mean = frames.mean(-1, keepdims=True)
    frames = jnp.where(jax.random.bernoulli(grey, shape=(len(frames), 1, 1, 1)), mean, frames)
    frames = (frames - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)
    dy, dx = jax.random.randint(shift, (2,), -4, 5)
    return jnp.roll(frames, (dy, dx), (1, 2)).astype(jnp.float32), jnp.roll(
        outlines, (dy, dx), (1, 2)
    )

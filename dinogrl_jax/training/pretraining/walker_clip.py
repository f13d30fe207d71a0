"""A small CLIP of synthetic walkers: towers that bring single frames and captions together.

Like CLIP it then knows what words look like, in both modalities, and no identity of a demo. CLIP
has seen 400 million pairs; so that some ten thousand frames suffice, the vector of a frame also has
to tell its outline, and which words are true, by linear layers that are not kept.

Source: the training of CLIP (arXiv 2103.00020).
"""

import math
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.data.walkers.captioned import CAPTIONS, SHOTS, captioned_people
from dinogrl_jax.data.walkers.captions import LENGTH, VOCABULARY
from dinogrl_jax.models.clip import ImageTower, TextTower, clip_grid
from dinogrl_jax.training.pretraining.steps import trained_params
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.published import CLIP_IMAGE, CLIP_TEXT
from dinogrl_jax.weights.rules import Rule, under

SEEDS = range(30_000, 30_008)  # of people and cameras that no demo uses
RULES = [
    *under(CLIP_IMAGE, "visual.", "image/"),
    *under(CLIP_TEXT, "", "text/"),
    Rule("token_embedding.weight", "params/words"),
    Rule("logit_scale", "params/logit_scale"),
]
POSITIONS = "visual.positional_embedding"


class Towers(nn.Module):
    """Frames and texts → their vectors, and the scale of products of these at length 1.

    config: the section `model.clip`.
    """

    config: ConfigDict

    @nn.compact
    def __call__(
        self, frames: Float[Array, "f h w 3"], ids: Int[Array, "k n"]
    ) -> tuple[Float[Array, "f e"], Float[Array, "k e"], Float[Array, ""]]:
        c, dtype = self.config, jnp.dtype("float32")
        image, text = ImageTower(c, dtype, name="image"), TextTower(c, dtype, name="text")
        init = nn.initializers.normal(0.02)
        words = self.param("words", init, (len(VOCABULARY), c.text.width))
        scale = self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())
        x = image.projected(image.final_norm(image(frames).last[:, 0]))
        return x, text(words[ids], LENGTH - 1), jnp.minimum(jnp.exp(scale), 100)


class Lesson(nn.Module):
    """The loss of frames, their outlines, one caption of each, and the words that are true."""

    config: ConfigDict

    @nn.compact
    def __call__(self, frames: Array, outlines: Array, ids: Array, true: Array) -> Array:
        x, y, scale = Towers(self.config, name="towers")(frames, ids)
        outline = nn.Dense(outlines[0].size, name="outline")(x).reshape(outlines.shape)
        words = nn.Dense(true.shape[1], name="words")(x)
        entropy = optax.sigmoid_binary_cross_entropy
        beside = entropy(outline, outlines).mean() + entropy(words, true).mean()
        return contrastive_loss(x, y, scale) + 10 * beside


def trained_state(
    config: ConfigDict, identities: int = 2000, steps: int = 1500, batch: int = 128
) -> dict[str, np.ndarray]:
    """The state dict, in OpenAI's naming, of the towers in the section `model.clip`.

    batch: people, of each a frame and a caption.
    """
    clip, size = config.model.clip, (config.data.height, config.data.width)
    people = captioned_people(SEEDS, -(-identities // len(SEEDS)), *size)
    batch = min(batch, len(people.frames))

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        rng = np.random.default_rng(SEEDS[0])
        while True:
            who = rng.permutation(len(people.frames))[:batch]
            shot, text = rng.integers(SHOTS, size=batch), rng.integers(CAPTIONS, size=batch)
            seen = people.frames[who, shot], people.outlines[who, shot]
            yield *seen, people.captions[who, text], people.words[who]

    def loss(params, key, frames, outlines, ids, true):
        frames, outlines = augmented_frames(key, frames, outlines)
        return lesson.apply({"params": params}, frames, outlines, ids, true)

    lesson, key = Lesson(clip), jax.random.key(SEEDS[0])
    frames, outlines, *texts = map(jnp.asarray, next(batches()))
    params = lesson.init(key, *augmented_frames(key, frames, outlines), *texts)["params"]
    rate = optax.cosine_onecycle_schedule(steps, 2e-3, 0.1)
    optimizer = optax.adamw(rate, b2=0.98, weight_decay=0.1)
    params = trained_params(params, loss, batches(), steps, optimizer, SEEDS[0])
    state, _ = to_state({"params": params["towers"]}, RULES)
    return {**state, POSITIONS: square_positions(state, *clip_grid(clip, *size))}


def contrastive_loss(
    x: Float[Array, "n e"], y: Float[Array, "n e"], scale: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Mean cross-entropy of frames' own texts and of texts' own frames, by scaled cosines."""
    x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    logits, own = scale * x @ y.T, jnp.arange(len(x))
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return (entropy(logits, own).mean() + entropy(logits.T, own).mean()) / 2


def augmented_frames(
    key: Array, frames: Array, outlines: Array
) -> tuple[Float[Array, "f h w 3"], Float[Array, "f h2 w2"]]:
    """Normalised frames, mirrored and shifted with their outlines; half have a single channel."""
    mirror, mix, shift = jax.random.split(key, 3)
    flip = jax.random.bernoulli(mirror, shape=(len(frames), 1, 1))
    outlines = jnp.where(flip, outlines[:, :, ::-1], outlines).astype(jnp.float32)
    frames = jnp.where(flip[..., None], frames[:, :, ::-1], frames) / 255.0
    channel = jax.random.randint(mix, (len(frames), 1, 1, 1), 0, 6)
    alone = jnp.take_along_axis(frames, jnp.minimum(channel, 2), axis=3)
    frames = normalised(jnp.where(channel < 3, alone, frames))
    dy, dx = jax.random.randint(shift, (2,), -1, 2)
    frames = jnp.roll(frames, (2 * dy, 2 * dx), (1, 2))
    return frames, jnp.roll(outlines, (dy, dx), (1, 2))


def normalised(frames: Float[Array, "f h w 3"]) -> Float[Array, "f h w 3"]:
    """Frames of 0 to 1 as a model sees them."""
    return ((frames - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)).astype(jnp.float32)


def square_positions(
    state: Mapping[str, np.ndarray], rows: int, columns: int
) -> Float[np.ndarray, "n c"]:
    """Positions of a square grid, as CLIP's files have them, of which a model makes the same again.

    Each column stands there rows / columns times, and these have itself as their mean.
    """
    token, grid = np.split(state[POSITIONS], [1])
    grid = np.repeat(grid.reshape(rows, columns, -1), rows // columns, axis=1)
    return np.concatenate([token, grid.reshape(rows * rows, -1)])

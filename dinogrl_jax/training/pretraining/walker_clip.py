"""A small CLIP of synthetic walkers: towers that bring single frames and captions together.

Like CLIP it then knows what words look like, in both modalities, and no identity of a demo. CLIP
has seen 400 million pairs; so that some ten thousand frames suffice, the tokens of patches also
have to tell the materials in them, and the vector of a frame has to tell which words are true of
the person, and the person's measures, by linear layers that are not kept.

Source: the training of CLIP (arXiv 2103.00020).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.data.walkers.captioned import CAPTIONS, SHOTS, CaptionedPeople, captioned_people
from dinogrl_jax.data.walkers.captions import LENGTH, VOCABULARY
from dinogrl_jax.models.clip import ImageTower, TextTower, clip_grid
from dinogrl_jax.training.pretraining.steps import trained_params
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.published import CLIP_IMAGE, CLIP_TEXT
from dinogrl_jax.weights.rules import Rule, under

SEEDS = range(30_000, 30_012)  # of people and cameras that no demo uses
RULES = [
    *under(CLIP_IMAGE, "visual.", "image/"),
    *under(CLIP_TEXT, "", "text/"),
    Rule("token_embedding.weight", "params/words"),
    Rule("logit_scale", "params/logit_scale"),
]
POSITIONS = "visual.positional_embedding"
STREAM = 0.25  # raw class tokens then lie about as far apart as normalised ones
INTO_STREAM = re.compile(r"visual\.(ln_pre|.*\.(out_proj|c_proj))\.(weight|bias)")
WEIGHTS = {"contrast": 1.0, "words": 20.0, "measures": 3.0, "materials": 3.0}  # of the terms


class Towers(nn.Module):
    """Frames and texts → their vectors, and the scale of products of these at length 1.

    config: the section `model.clip`.
    """

    config: ConfigDict

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype("float32")
        self.image, self.text = ImageTower(c, dtype), TextTower(c, dtype)
        init = nn.initializers.normal(0.02)
        self.words = self.param("words", init, (len(VOCABULARY), c.text.width))
        init = nn.initializers.constant(math.log(1 / 0.07))
        self.logit_scale = self.param("logit_scale", init, ())

    def __call__(
        self, frames: Float[Array, "f h w 3"], ids: Int[Array, "k n"]
    ) -> tuple[Float[Array, "f e"], Float[Array, "k e"], Float[Array, ""]]:
        return self.seen(frames)[0], *self.read(ids)

    def seen(
        self, frames: Float[Array, "f h w 3"]
    ) -> tuple[Float[Array, "f e"], Float[Array, "f n c"]]:
        """The vectors of frames, and the tokens of their patches."""
        tokens = self.image.final_norm(self.image(frames).last)
        return self.image.projected(tokens[:, 0]), tokens[:, 1:]

    def read(self, ids: Int[Array, "k n"]) -> tuple[Float[Array, "k e"], Float[Array, ""]]:
        """The vectors of texts, and the scale of products."""
        return self.text(self.words[ids], LENGTH - 1), jnp.minimum(jnp.exp(self.logit_scale), 100)


class Lesson(nn.Module):
    """The terms of the loss: of frames, the materials in them, captions, and what is true."""

    config: ConfigDict

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "f h w 3"],
        materials: UInt8[Array, "f rows columns m"],
        ids: Int[Array, "f n"],
        true: Array,
        measures: Float[Array, "f k"],
    ) -> dict[str, Float[Array, ""]]:
        towers = Towers(self.config, name="towers")
        x, patches = towers.seen(frames)
        words = nn.Dense(true.shape[1], name="words")(x)
        sizes = nn.Dense(measures.shape[1], name="measures")(x)
        cells = cells_of_patches(materials, *clip_grid(self.config, *frames.shape[1:3]))
        logits = nn.Dense(cells[0, 0].size, name="materials")(patches).reshape(cells.shape)
        return {
            "contrast": contrastive_loss(x, *towers.read(ids)),
            "words": optax.sigmoid_binary_cross_entropy(words, true).mean(),
            "measures": jnp.square(sizes - measures).mean(),
            "materials": optax.softmax_cross_entropy(logits, cells).mean(),
        }


def trained_state(
    config: ConfigDict, identities: int = 3000, steps: int = 2400, batch: int = 64
) -> dict[str, np.ndarray]:
    """The state dict, in OpenAI's naming, of the towers in the section `model.clip`.

    batch: people, of each a frame and a caption.
    """
    clip, size = config.model.clip, (config.data.height, config.data.width)
    people = captioned_people(SEEDS, -(-identities // len(SEEDS)), *size)
    params, loss = initial_params(clip, people), lesson_loss(clip)
    batches = lessons(people, batch)
    params = trained_params(params, loss, batches, steps, optimizer(steps), SEEDS[0])
    return state_of(params, clip, size)


def initial_params(clip: ConfigDict, people: CaptionedPeople) -> dict:
    """Random parameters of a lesson."""
    key = jax.random.key(SEEDS[0])
    frames, materials, *others = map(jnp.asarray, next(lessons(people, 2)))
    seen = augmented_frames(key, frames, materials)
    return jax.jit(Lesson(clip).init)(key, *seen, *others)["params"]


def lesson_loss(clip: ConfigDict) -> Callable:
    """The loss that `trained_params` takes: the weighted sum of the lesson's terms."""
    lesson = Lesson(clip)

    def loss(params, key, frames, materials, *others):
        seen = augmented_frames(key, frames, materials)
        terms = lesson.apply({"params": params}, *seen, *others)
        return sum(WEIGHTS[name] * term for name, term in terms.items())

    return loss


def lessons(people: CaptionedPeople, batch: int) -> Iterator[tuple[np.ndarray, ...]]:
    """What `Lesson` takes, without end: each person of a batch in one frame, with one caption."""
    rng = np.random.default_rng(SEEDS[0])
    measures = people.measures - people.measures.mean(0)
    measures /= people.measures.std(0) + 1e-6
    while True:
        who = rng.permutation(len(people.frames))[:batch]
        shot, text = rng.integers(SHOTS, size=len(who)), rng.integers(CAPTIONS, size=len(who))
        seen = people.frames[who, shot], people.materials[who, shot]
        yield *seen, people.captions[who, text], people.words[who], measures[who]


def optimizer(steps: int) -> optax.GradientTransformation:
    """Muon for matrices, which learn faster by it than by Adam, and Adam for the rest."""
    return optax.contrib.muon(
        lambda step: 0.02 * rate_factor(step, steps),
        weight_decay=0.1,
        adam_learning_rate=lambda step: 0.002 * rate_factor(step, steps),
        adam_b2=0.98,
        adam_weight_decay=0.1,
    )


def rate_factor(step: Int[Array, ""] | int, steps: int) -> Float[Array, ""]:
    """A step's share of the rates: rises over 200 steps, and falls over the last two fifths."""
    return jnp.clip(jnp.minimum(step / 200, 2.5 * (1 - step / steps)), 0, 1)


def state_of(params: Mapping, clip: ConfigDict, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The towers of a lesson's parameters as CLIP's file has them."""
    state, _ = to_state({"params": params["towers"]}, RULES)
    positions = square_positions(state, *clip_grid(clip, *size))
    return with_scaled_stream({**state, POSITIONS: positions}, STREAM)


def with_scaled_stream(
    state: Mapping[str, np.ndarray], scale: float
) -> dict[str, Float[np.ndarray, "..."]]:
    """Towers of the same vectors, with all that goes into the image tower's stream scaled.

    Behind a LayerNorm nothing of it is seen; a loss of raw tokens has other distances.
    """
    scale = np.float32(scale)
    return {key: scale * x if INTO_STREAM.fullmatch(key) else x for key, x in state.items()}


def cells_of_patches(
    materials: UInt8[Array, "f rows columns m"], rows: int, columns: int
) -> Float[Array, "f n cells m1"]:
    """Shares of materials, and of none, in the cells of each patch."""
    f, r, c, m = materials.shape
    shares = materials.astype(jnp.float32) / 255
    none = jnp.maximum(1 - shares.sum(-1, keepdims=True), 0)
    shares = jnp.concatenate([shares, none], -1)
    shares = shares.reshape(f, rows, r // rows, columns, c // columns, m + 1).swapaxes(2, 3)
    return shares.reshape(f, rows * columns, -1, m + 1)


def contrastive_loss(
    x: Float[Array, "n e"], y: Float[Array, "n e"], scale: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Mean cross-entropy of frames' own texts and of texts' own frames, by scaled cosines."""
    x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    logits, own = scale * x @ y.T, jnp.arange(len(x))
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return (entropy(logits, own).mean() + entropy(logits.T, own).mean()) / 2


def augmented_frames(
    key: Array, frames: Array, materials: Array
) -> tuple[Float[Array, "f h w 3"], Array]:
    """Normalised frames, half mirrored with their materials; half have a single channel."""
    mirror, mix = jax.random.split(key)
    flip = jax.random.bernoulli(mirror, shape=(len(frames), 1, 1, 1))
    materials = jnp.where(flip, materials[:, :, ::-1], materials)
    frames = jnp.where(flip, frames[:, :, ::-1], frames) / 255.0
    channel = jax.random.randint(mix, (len(frames), 1, 1, 1), 0, 6)
    alone = jnp.take_along_axis(frames, jnp.minimum(channel, 2), axis=3)
    return normalised(jnp.where(channel < 3, alone, frames)), materials


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

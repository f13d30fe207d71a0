"""A small CLIP of synthetic walkers: towers that bring single frames and captions together."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.data.walkers import captions
from dinogrl_jax.data.walkers.captioned import CaptionedPeople, CAPTIONS
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.models.clip import ImageTower, TextTower
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.published import CLIP_IMAGE, CLIP_TEXT
from dinogrl_jax.weights.rules import Rule, under

RULES = [
    *under(CLIP_IMAGE, "visual.", "image/"),
    *under(CLIP_TEXT, "", "text/"),
    Rule("token_embedding.weight", "params/words"),
    Rule("logit_scale", "params/logit_scale"),
]
MOST_SCALE = np.log(100)


class SmallCLIP(nn.Module):
    config: ConfigDict

    @nn.compact
    def __call__(self, frames, ids):
        """Products [f, ids] of the unit vectors of frames and texts, times the learned scale."""
        c = self.config
        image = ImageTower(c, jnp.float32, "nothing", name="image")
        text = TextTower(c, jnp.float32, "nothing", name="text")
        shape = len(captions.VOCABULARY), c.text.width
        words = self.param("words", nn.initializers.normal(0.02), shape)
        scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), ())
        x = image.projected(image.final_norm(image(frames).last[:, 0]))
        y = text(words[ids], captions.LENGTH - 1)
        x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
        return jnp.exp(jnp.minimum(scale, MOST_SCALE)) * x @ y.T


def augmented(key, frames):
    mirror, grey, shift = jax.random.split(key, 3)
    n = len(frames)
    flip = jax.random.bernoulli(mirror, shape=(n, 1, 1, 1))
    x = jnp.where(flip, frames[:, :, ::-1], frames) / 255.0
    channel = jax.random.randint(grey, (n,), 0, 6)
    one = jnp.take_along_axis(x, jnp.minimum(channel, 2)[:, None, None, None], axis=3)
    x = jnp.where((channel < 3)[:, None, None, None], one, x)
    x = (x - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)
    dy, dx = jax.random.randint(shift, (2,), -3, 4)
    return jnp.roll(x, (dy, dx), (1, 2)).astype(jnp.float32)


def trained(config, found: CaptionedPeople, steps: int, batch: int, rate: float, seed: int, log=print):
    model = SmallCLIP(config)
    key = jax.random.key(seed)
    h, w = found.frames.shape[2:4]
    ids = jnp.zeros((1, captions.LENGTH), jnp.int32)
    params = model.init(key, jnp.zeros((1, h, w, 3)), ids)["params"]
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, rate, 0.1), b2=0.98, weight_decay=0.1)

    @jax.jit
    def step(params, state, key, frames, ids):
        def loss(params):
            logits = model.apply({"params": params}, augmented(key, frames), ids)
            own = jnp.arange(len(logits))
            ce = optax.softmax_cross_entropy_with_integer_labels
            return (ce(logits, own).mean() + ce(logits.T, own).mean()) / 2, (logits.argmax(1) == own).mean()

        (value, right), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value, right

    state, rng = optimizer.init(params), np.random.default_rng(seed)
    with Progress("pretraining", steps, "steps") as progress:
        for number in progress.over(range(steps)):
            who = rng.permutation(len(found.frames))[:batch]
            frames = found.frames[who, rng.integers(found.frames.shape[1], size=batch)]
            texts = found.captions[who, rng.integers(CAPTIONS, size=batch)]
            fold = jax.random.fold_in(key, number)
            params, state, value, right = step(params, state, fold, frames, texts)
            if number % 100 == 99:
                log(f"step {number + 1}  loss {float(value):.4f} right {float(right):.3f} scale {float(jnp.exp(params['logit_scale'])):.1f}", flush=True)
    return jax.device_get(params)


def state_dict(params) -> dict:
    return to_state({"params": params}, RULES)[0]

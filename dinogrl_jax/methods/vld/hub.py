"""VLD's spatial-temporal hub (STH), whose tokens frames exchange, and their aggregation (STA)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dinogrl_jax.models.layers import Dense
from dinogrl_jax.ops.attention import attention


class Hub(nn.Module):
    """STH: what comes into each block of an image tower; from `start` on, hub tokens at the end.

    A tracklet of t frames has t tokens for each frame, so that in every second block each frame
    has one token of every other.

    config: the section `model.hub` of VLD's settings.
    """

    config: ConfigDict
    width: int

    def setup(self) -> None:
        frames = self.config.frames
        init = nn.initializers.normal(self.config.spread)
        self.tokens = self.param("tokens", init, (frames, frames, self.width))

    def __call__(self, block: int, x: Float[Array, "f n c"], t: int) -> Float[Array, "f n2 c"]:
        """x: the tokens in front of a block, of tracklets of t frames; blocks count from 0."""
        if block == self.config.start:
            return with_hub_tokens(x, self.tokens[:t, :t])
        return with_exchanged_tokens(x, t) if block > self.config.start else x


def with_hub_tokens(x: Float[Array, "f n c"], hub: Float[Array, "t k c"]) -> Float[Array, "f n2 c"]:
    """The tokens of each frame, and behind them those that the hub has for its place."""
    f, (t, *shape) = len(x), hub.shape
    own = jnp.broadcast_to(hub.astype(x.dtype), (f // t, t, *shape))
    return jnp.concatenate([x, own.reshape(f, *shape)], axis=1)


def with_exchanged_tokens(x: Float[Array, "f n c"], t: int) -> Float[Array, "f n c"]:
    """The last t tokens of a tracklet's frames: the k-th of frame i becomes the i-th of frame k."""
    f, _, c = x.shape
    hub = x[:, -t:].reshape(f // t, t, t, c).swapaxes(1, 2).reshape(f, t, c)
    return jnp.concatenate([x[:, :-t], hub], axis=1)


class Aggregation(nn.Module):
    """STA: the class token of each frame attends to all hub tokens of its tracklet, no residual.

    Source: torch.nn.MultiheadAttention.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"], t: int) -> Float[Array, "f c"]:
        """x: tokens of tracklets of t frames, the class token first and t hub tokens last."""
        f, _, c = x.shape
        x = jnp.concatenate([x[:, :1], x[:, -t:]], axis=1)
        init = nn.initializers.xavier_uniform()
        qkv = Dense(3 * c, self.dtype, init, name="qkv")(x)
        qkv = qkv.reshape(f // t, t, 1 + t, 3 * self.heads, c // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=3)
        k, v = (y[:, :, 1:].reshape(f // t, t * t, *y.shape[3:]) for y in (k, v))
        y = attention(q[:, :, 0], k, v).reshape(f, c)
        return Dense(c, self.dtype, name="proj")(y)

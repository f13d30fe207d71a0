"""X-ReID's interactions of frames: the class token of each attends to patches of its neighbours."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models.clip import EPSILON
from dinogrl_jax.models.layers import DENSE_INIT, Dense, LayerNorm
from dinogrl_jax.models.transformer import MLP
from dinogrl_jax.ops.attention import attention
from dinogrl_jax.ops.matmul import matmul
from dinogrl_jax.ops.remat import remat

SHIFTS, BORDERS = ("clean", "cascade"), ("cyclic", "clamp")


class SII(nn.Module):
    """Short-term interaction: class tokens attend to patches that have channels of the next frames.

    depth: cross-attentions, one after the other, which all read the same patches; shift: see
    `with_neighbours`; remat: a policy of ops/remat.py, for each cross-attention.
    """

    depth: int
    heads: int
    shift: str
    dtype: jnp.dtype
    remat: str = "nothing"

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"], t: int) -> Float[Array, "f c"]:
        """x: tokens of tracklets of t frames, the class token first."""
        x, block = with_shifted_patches(x, t, self.shift), remat(CrossAttention, self.remat)
        y, patches = x[:, 0], x[:, 1:]
        for i in range(self.depth):
            y = block(self.heads, self.dtype, name=f"block{i}")(y, patches)
        return y


def with_shifted_patches(x: Float[Array, "f n c"], t: int, shift: str) -> Float[Array, "f n c"]:
    """Tokens of tracklets of t frames whose patches are those of `with_neighbours`."""
    f, n, c = x.shape
    patches = with_neighbours(x[:, 1:].reshape(f // t, t, n - 1, c), shift)
    return jnp.concatenate([x[:, :1], patches.reshape(f, n - 1, c)], axis=1)


def with_neighbours(x: Float[Array, "v t n c"], shift: str) -> Float[Array, "v t n c"]:
    """Patches whose first quarter of channels is of the frame before, the second of that behind.

    The first and the last frame stand in for those that are not there. "cascade": the first quarter
    is the first frame's in all frames, which the published shift in place makes of it on one thread
    of a CPU. (On several, and on a GPU, it makes something else in every run.)

    Source: Eq. 5 of the paper.
    """
    quarter = x.shape[-1] // 4
    before, after, own = jnp.split(x, [quarter, 2 * quarter], axis=-1)
    if shift == "cascade":
        before = jnp.broadcast_to(before[:, :1], before.shape)
    else:
        before = jnp.concatenate([before[:, :1], before[:, :-1]], axis=1)
    after = jnp.concatenate([after[:, 1:], after[:, -1:]], axis=1)
    return jnp.concatenate([before, after, own], axis=-1)


class LII(nn.Module):
    """Long-term interaction: the class token of another frame attends to the patches of a frame.

    stride: how many frames that one is before it, negative for one behind it; border: "cyclic"
    goes on at the other end of the tracklet, "clamp" stays with the frame at the end.
    """

    heads: int
    stride: int
    border: str
    dtype: jnp.dtype
    remat: str = "nothing"

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"], t: int) -> Float[Array, "f c"]:
        """x: tokens of tracklets of t frames, the class token first."""
        f, _, c = x.shape
        other = jnp.arange(t) - self.stride
        other = other % t if self.border == "cyclic" else jnp.clip(other, 0, t - 1)
        asking = x[:, 0].reshape(f // t, t, c)[:, other].reshape(f, c)
        return remat(CrossAttention, self.remat)(self.heads, self.dtype, name="block")(
            asking, x[:, 1:]
        )


class CrossAttention(nn.Module):
    """One vector of each frame attends to its patches, then an MLP; both with a residual.

    Keys are made of normalised patches, values of the patches as they are.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "f c"], patches: Float[Array, "f n c"]
    ) -> Float[Array, "f c"]:
        c = x.shape[-1]

        def norm(name: str) -> LayerNorm:
            return LayerNorm(self.dtype, epsilon=EPSILON, name=name)

        def by_heads(name: str, y: Float[Array, "f m c"]) -> Float[Array, "f m h d"]:
            kernel = self.param(name, DENSE_INIT, (c, c)).astype(self.dtype)
            return matmul(y, kernel).reshape(*y.shape[:2], self.heads, c // self.heads)

        x, patches = x.astype(self.dtype), patches.astype(self.dtype)
        q = by_heads("query", norm("query_norm")(x)[:, None])
        k = by_heads("key", norm("key_norm")(patches))
        v = by_heads("value", patches)
        x = x + Dense(c, self.dtype, name="proj")(attention(q, k, v).reshape(len(x), c))
        return x + MLP(4 * c, self.dtype, name="mlp")(norm("norm")(x)[:, None])[:, 0]

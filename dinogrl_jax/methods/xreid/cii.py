"""X-ReID's cross-modal interaction, which the paper describes in a few lines and no code has."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models.clip import EPSILON
from dinogrl_jax.models.layers import DENSE_INIT, Dense, LayerNorm
from dinogrl_jax.models.transformer import MLP
from dinogrl_jax.ops.attention import attention
from dinogrl_jax.ops.matmul import matmul


class CII(nn.Module):
    """A vector of a tracklet reads the patches of a frame of the other modality: one block.

    Attention and MLP, each behind a LayerNorm; queries, keys and values have no bias. The paper
    says as much as "MHSA" and "FFN"; the rest is as in the unit that its code has beside SII.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "f c"], patches: Float[Array, "f n c"]
    ) -> Float[Array, "f c"]:
        f, n, c = patches.shape
        x = jnp.concatenate([x[:, None], patches], axis=1).astype(self.dtype)
        y = LayerNorm(self.dtype, epsilon=EPSILON, name="norm1")(x)
        kernel = self.param("qkv", DENSE_INIT, (c, 3 * c)).astype(self.dtype)
        qkv = matmul(y, kernel).reshape(f, 1 + n, 3 * self.heads, c // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=2)
        y = attention(q[:, :1], k, v).reshape(f, c)  # what the patches would read is not used
        x = x[:, 0] + Dense(c, self.dtype, name="proj")(y)
        y = LayerNorm(self.dtype, epsilon=EPSILON, name="norm2")(x)
        return x + MLP(4 * c, self.dtype, name="mlp")(y[:, None])[:, 0]


def constraint(
    asking: Float[Array, "b m c"], found: Float[Array, "b m c"], detach: bool
) -> Float[Array, ""]:
    """Squared distances of what was found to what asked; mean over pairs, sum of both directions.

    detach: what asked has no gradient as the target.
    """
    target = jax.lax.stop_gradient(asking) if detach else asking
    return jnp.square(target - found).sum(-1).mean(0).sum()

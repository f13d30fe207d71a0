"""DINOv2's vision transformer: ViT-S/B/L/g, with and without registers.

Source: facebookresearch/dinov2, models/vision_transformer.py.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import lookup
from dinogrl_jax.models.layers import LayerNorm
from dinogrl_jax.models.transformer import MLP, Attention, PatchEmbedding, SwiGLU
from dinogrl_jax.ops.resize import (
    antialiased_bicubic_matrix,
    bicubic_resized,
    bilinear_matrix,
    resized,
)


class Tokens(NamedTuple):
    """Patch tokens [f, h, w, c] in rows and columns of patches."""

    last: Float[Array, "f h w c"]  # after the final LayerNorm
    taps: Float[Array, "f h w c4"]  # after the tapped blocks, side by side, normalised together


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and in front of a scale for each channel."""

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        c, channels = self.config, x.shape[-1]
        ls1, ls2 = (self.param(f"ls{i}", nn.initializers.ones, (channels,)) for i in (1, 2))
        mlp = lookup({"gelu": MLP, "swiglu": SwiGLU}, c.mlp, "model.dinov2.mlp")
        y = LayerNorm(self.dtype, name="norm1")(x)
        x = x + ls1.astype(self.dtype) * Attention(c.heads, self.dtype, name="attn")(y)
        y = LayerNorm(self.dtype, name="norm2")(x)
        y = mlp(int(channels * c.mlp_ratio), self.dtype, name="mlp")(y)
        return x + ls2.astype(self.dtype) * y


class DINOv2(nn.Module):
    """Normalised RGB frames [f, h, w, 3] of any size → tokens of `height × width` pixels.

    config: the section `model.dinov2` of DinoGRL's settings, which lists what it takes.
    """

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, frames: Float[Array, "f h w 3"]) -> Tokens:
        c = self.config
        rows, columns = c.height // c.patch, c.width // c.patch
        x = frames_resized(frames, c.height, c.width).astype(self.dtype)
        x = PatchEmbedding(c.embedding, c.patch, self.dtype, name="patch_embed")(x)
        x = self._with_positions(x, rows, columns)
        first, tapped = 1 + c.registers, []
        for i in range(c.depth):
            x = Block(c, self.dtype, name=f"block{i}")(x)
            if i in c.taps:
                tapped.append(x[:, first:])
        last = LayerNorm(self.dtype, name="norm")(x)[:, first:]
        taps = LayerNorm(self.dtype, affine=False)(jnp.concatenate(tapped, axis=-1))
        shape = (len(x), rows, columns, -1)
        return Tokens(last.reshape(shape), taps.reshape(shape))

    def _with_positions(
        self, x: Float[Array, "f n c"], rows: int, columns: int
    ) -> Float[Array, "f n2 c"]:
        """Class token, registers and patches; registers alone have no position."""
        c, normal = self.config, nn.initializers.normal(0.02)
        cls = self.param("cls_token", normal, (1, 1, c.embedding))
        positions = self.param("pos_embed", normal, (1, 1 + c.grid**2, c.embedding))
        grid = resampled_positions(positions[0, 1:], c.grid, rows, columns, c.offset, c.antialias)
        front = [cls[0] + positions[0, :1]]
        if c.registers:
            shape = (1, c.registers, c.embedding)
            front.append(self.param("register_tokens", normal, shape)[0])
        front = jnp.concatenate(front).astype(self.dtype)
        front = jnp.broadcast_to(front, (len(x), *front.shape))
        return jnp.concatenate([front, x + grid.astype(self.dtype)], axis=1)


def frames_resized(frames: Float[Array, "f h w 3"], height: int, width: int) -> Array:
    """The frames at another size, bilinear without antialias; unchanged at their own size."""
    h, w = frames.shape[1:3]
    if (h, w) == (height, width):
        return frames
    rows = bilinear_matrix(h, height, frames.dtype)
    return resized(frames, rows, bilinear_matrix(w, width, frames.dtype))


def resampled_positions(
    grid: Float[Array, "n c"], side: int, rows: int, columns: int, offset: float, antialias: bool
) -> Float[Array, "n2 c"]:
    """The positional embeddings of a square grid, resampled to rows × columns in float32.

    With an offset the scale factors are (size + offset)/side, and PyTorch samples with these and
    not with the ratio of the sizes. The grid's own size is left alone.
    """
    if (rows, columns) == (side, side):
        return grid
    image = grid.astype(jnp.float32).reshape(side, side, -1)
    if antialias:
        matrices = (antialiased_bicubic_matrix(side, n) for n in (rows, columns))
        image = resized(image[None], *matrices)[0]
    else:
        scale = tuple((n + offset) / side for n in (rows, columns))
        image = bicubic_resized(image, (rows, columns), scale)
    return image.reshape(rows * columns, -1)

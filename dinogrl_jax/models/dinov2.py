"""DINOv2's vision transformer: ViT-S/B/L/g, with and without registers.

Source: facebookresearch/dinov2, models/vision_transformer.py.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dinogrl_jax.ops.layers import accumulation_dtype, apart, gelu, in_turns
from dinogrl_jax.ops.normalisation import LayerNorm
from dinogrl_jax.ops.resize import (
    antialiased_bicubic_matrix,
    bicubic_resized,
    bilinear_matrix,
    resized,
)

FRAMES_AT_ONCE = 6  # on processors, for each device


class Tokens(NamedTuple):
    """Patch tokens [f, h, w, c] in rows and columns of patches."""

    last: Float[Array, "f h w c"]  # after the final LayerNorm
    taps: Float[Array, "f h w c4"]  # after the tapped blocks, side by side, normalised together


class Linear(nn.Module):
    """A linear layer with bias; factor: of its result, which the kernel takes."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "*n c"], factor: Float[Array, "#d"] | None = None
    ) -> Float[Array, "*n d"]:
        kernel, bias = self._given(x.shape[-1], factor)
        return x @ kernel + bias

    def _given(self, inputs: int, factor: Array | None) -> tuple[Array, Array]:
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if factor is not None:
            kernel, bias = kernel * factor, bias * factor
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class QKV(Linear):
    """Queries, divided by the root of a head's width, keys and values, each a product of its own.

    One product of all three would have to be taken apart for the attention.
    """

    heads: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> list[Float[Array, "f n h d"]]:
        f, n, c = x.shape
        factor = jnp.repeat(jnp.array([(c // self.heads) ** -0.5, 1, 1]), c)
        kernel, bias = self._given(c, factor)
        thirds = zip(jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
        return [(x @ k + b).reshape(f, n, self.heads, c // self.heads) for k, b in thirds]


class Attention(nn.Module):
    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"], factor: Float[Array, " c"]) -> Array:
        q, k, v = QKV(3 * x.shape[-1], self.dtype, self.heads, name="qkv")(x)
        ways = {"cpu": attended_in_turn, "default": attended}
        if has_flash_attention(self.dtype):
            ways["cuda"] = partial(jax.nn.dot_product_attention, scale=1.0, implementation="cudnn")
        y = jax.lax.platform_dependent(q, k, v, **ways)
        return Linear(x.shape[-1], self.dtype, name="proj")(y.reshape(x.shape), factor)


def has_flash_attention(dtype: jnp.dtype) -> bool:
    """Whether cuDNN's attention, which never has the weights in memory, runs on this machine."""
    device = jax.local_devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    return cuda and dtype == jnp.bfloat16 and float(device.compute_capability) >= 8


def attended(
    q: Float[Array, "f n h d"], k: Float[Array, "f n h d"], v: Float[Array, "f n h d"]
) -> Float[Array, "f n h d"]:
    """The values v, weighted by the softmax over n of each query's products with the keys k."""
    logits = jnp.einsum("fqhd,fkhd->fhqk", q, k)
    weights = jax.nn.softmax(logits.astype(accumulation_dtype(q.dtype)))
    return jnp.einsum("fhqk,fkhd->fqhd", weights.astype(q.dtype), v)


def attended_in_turn(
    q: Float[Array, "f n h d"], k: Float[Array, "f n h d"], v: Float[Array, "f n h d"]
) -> Float[Array, "f n h d"]:
    """`attended`, two heads of each device at a time: for processors.

    Their n·n weights stay in the cache, and with the keys in front the softmax adds up whole rows.
    """

    def turn(qkv: tuple[Array, Array, Array]) -> Array:
        q, k, v = qkv
        logits = jnp.einsum("fkd,fqd->fkq", k, q).astype(accumulation_dtype(q.dtype))
        weights = jnp.exp(logits - logits.max(1, keepdims=True))
        y = jnp.einsum("fkq,fkd->fqd", weights.astype(q.dtype), v)
        return (y / weights.sum(1)[:, :, None]).astype(q.dtype)

    f, n, h, d = q.shape
    heads = tuple(x.swapaxes(1, 2).reshape(f * h, n, d) for x in (q, k, v))
    return in_turns(turn, heads, at_once=2).reshape(f, h, n, d).swapaxes(1, 2)


class MLP(nn.Module):
    """Two linear layers around an exact GELU, or SwiGLU (ViT-g) with its width rounded to 8."""

    kind: str
    ratio: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"], factor: Float[Array, " c"]) -> Array:
        hidden, channels = int(x.shape[-1] * self.ratio), x.shape[-1]
        if self.kind == "swiglu":
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
            gate, value = jnp.split(Linear(2 * hidden, self.dtype, name="w12")(x), 2, -1)
            return Linear(channels, self.dtype, name="w3")(nn.silu(gate) * value, factor)
        y = gelu(Linear(hidden, self.dtype, name="fc1")(x))
        return Linear(channels, self.dtype, name="fc2")(y, factor)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and in front of a per-channel scale."""

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        c, channels = self.config, (x.shape[-1],)
        ls1, ls2 = (self.param(f"ls{i}", nn.initializers.ones, channels) for i in (1, 2))
        # Apart, or what computes a LayerNorm's sums on a CPU takes the products behind it along.
        y = apart(LayerNorm(self.dtype, name="norm1")(x))
        x = x + Attention(c.heads, self.dtype, name="attn")(y, ls1)
        y = apart(LayerNorm(self.dtype, name="norm2")(x))
        return x + MLP(c.mlp, c.mlp_ratio, self.dtype, name="mlp")(y, ls2)


class PatchEmbedding(nn.Module):
    """One linear layer for every patch."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h p w q c"]) -> Float[Array, "f n d"]:
        f, h, p, w, q, c = x.shape
        shape = (p, q, c, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(f, h * w, p * q * c)
        kernel = kernel.astype(self.dtype).reshape(p * q * c, self.features)
        return x @ kernel + bias.astype(self.dtype)


class DINOv2(nn.Module):
    """Normalised RGB frames [f, h, w, 3] of any size → tokens of `height × width` pixels.

    config: the section `model.dinov2` of `dinogrl_jax.config`.
    """

    config: ConfigDict
    dtype: jnp.dtype

    def __call__(self, frames: Float[Array, "f h w 3"]) -> Tokens:
        if self.is_initializing():
            return self._tokens(frames)
        alone = DINOv2(self.config, self.dtype, parent=None)
        call = partial(alone.apply, self.variables, method="_tokens")
        ways = {"cpu": partial(in_turns, call, at_once=FRAMES_AT_ONCE), "default": call}
        return jax.lax.platform_dependent(frames, **ways)

    @nn.compact
    def _tokens(self, frames: Float[Array, "f h w 3"]) -> Tokens:
        c = self.config
        rows, columns = c.height // c.patch, c.width // c.patch
        normal = nn.initializers.normal(0.02)
        cls = self.param("cls_token", normal, (1, 1, c.embedding))
        positions = self.param("pos_embed", normal, (1, 1 + c.grid**2, c.embedding))
        x = frames_resized(frames, c.height, c.width).astype(self.dtype)
        x = x[:, : rows * c.patch, : columns * c.patch]
        x = x.reshape(len(x), rows, c.patch, columns, c.patch, 3)
        x = PatchEmbedding(c.embedding, self.dtype, name="patch_embed")(x)
        grid = resampled_positions(positions[0, 1:], c.grid, rows, columns, c.offset, c.antialias)
        table = [cls[0] + positions[0, :1], grid]
        if c.registers:
            shape = (1, c.registers, c.embedding)
            table.insert(1, self.param("register_tokens", normal, shape)[0])
        # The tokens in front of the patches' are those of the table, in one pass.
        x = jnp.pad(x, ((0, 0), (1 + c.registers, 0), (0, 0)))
        x = x + jnp.concatenate(table).astype(self.dtype)
        tapped = []
        for i in range(c.depth):
            x = Block(c, self.dtype, name=f"block{i}")(x)
            if i in c.taps:
                tapped.append(x[:, 1 + c.registers :])
        last = LayerNorm(self.dtype, name="norm")(x)[:, 1 + c.registers :]
        taps = jnp.concatenate(tapped, axis=-1)
        taps = LayerNorm(self.dtype, affine=False)(taps)
        shape = (len(x), rows, columns, -1)
        return Tokens(last.reshape(shape), taps.reshape(shape))


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

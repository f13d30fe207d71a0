"""CLIP's towers: frames and prompts → vectors of one space.

Source: openai/CLIP, clip/model.py. Position, class token and norms lie where they lie there; the
positional embedding is one of the tower's own grid (`weights/clip_files.py` resamples a file's).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.interface.settings import PIXELS, Range, Setting, between, divides, one_of
from dinogrl_jax.models.layers import LayerNorm
from dinogrl_jax.models.transformer import MLP, Attention, PatchEmbedding, patch_grid
from dinogrl_jax.ops.activations import gelu, quick_gelu
from dinogrl_jax.ops.remat import remat

EPSILON = 1e-5  # of every LayerNorm
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def clip_settings() -> dict:
    """The section `model.clip`: the image tower of OpenAI's ViT-B/16, and what both towers share.

    A method with a text tower adds `text_settings()` as `text`.
    """
    return {
        "patch": Setting(16, "pixels", PIXELS, FITS_A_FRAME),
        "stride": Setting(
            0, "pixels from a patch to the next; 0 is the patch's size", between(0, 8192)
        ),
        "width": Setting(768, "channels of a token", between(1, 65_536)),
        "depth": Setting(12, "blocks", between(1, 1000)),
        "heads": Setting(12, "of attention", between(1, 65_536), divides("model.clip.width")),
        "embedding": Setting(512, "channels of the space of both towers", between(1, 65_536)),
        "activation": Setting(
            "quick_gelu",
            "OpenAI's weights want quick_gelu, open_clip's of LAION and DataComp gelu; no file of "
            "weights says which",
            one_of(*ACTIVATIONS),
        ),
    }


def text_settings() -> dict:
    """The section `model.clip.text`: the text tower of OpenAI's ViT-B/16."""
    return {
        "width": Setting(512, "channels of a token", between(1, 65_536)),
        "depth": Setting(12, "blocks", between(1, 1000)),
        "heads": Setting(8, "of attention", between(1, 65_536), divides("model.clip.text.width")),
        "positions": Setting(77, "tokens that have a position", between(1, 65_536)),
    }


FITS_A_FRAME = Range(
    lambda patch, config: patch <= min(config.data.height, config.data.width),
    lambda config: "be no larger than data.height and data.width",
    relates=True,
)


def clip_grid(config: ConfigDict, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an image tower's patches; config: the section `model.clip`."""
    return patch_grid(height, width, config.patch, config.stride or config.patch)


class Tokens(NamedTuple):
    """The residual stream of an image tower, before any final norm; token 0 is the class token."""

    before_last: Float[Array, "f n c"]  # what comes into the last block
    last: Float[Array, "f n2 c"]  # what comes out of it


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm.

    heads: of attention; causal: a token sees itself and those before it.
    """

    heads: int
    activation: str
    dtype: jnp.dtype
    causal: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "f n c"]) -> Float[Array, "f n c"]:
        activation = lookup(ACTIVATIONS, self.activation, "model.clip.activation")
        y = LayerNorm(self.dtype, epsilon=EPSILON, name="norm1")(x)
        x = x + Attention(self.heads, self.dtype, self.causal, name="attn")(y)
        y = LayerNorm(self.dtype, epsilon=EPSILON, name="norm2")(x)
        return x + MLP(4 * x.shape[-1], self.dtype, activation, name="mlp")(y)


class ImageTower(nn.Module):
    """Normalised frames [f, h, w, 3] → tokens: the class token, then patches row by row.

    A frame has as many patches as lie wholly in it. The final norm and the projection are methods,
    since who calls the tower has other vectors for them too.

    config: the section `model.clip`; remat: a policy of ops/remat.py, for each block.
    """

    config: ConfigDict
    dtype: jnp.dtype
    remat: str = "nothing"

    def setup(self) -> None:
        c = self.config
        self.norm = LayerNorm(self.dtype, epsilon=EPSILON)
        init = nn.initializers.normal(c.width**-0.5)
        self.projection = self.param("projection", init, (c.width, c.embedding))

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "f h w 3"],
        class_offset: Float[Array, "f c"] | None = None,
        between: Callable[[int, Array], Array] | None = None,
    ) -> Tokens:
        """The stream before and behind the last block.

        class_offset: is added to the class token of each frame, before its position.
        between: (block, tokens [f n c]) → tokens, called before each block, counted from 0.
        """
        c, block = self.config, remat(Block, self.remat)
        x = PatchEmbedding(
            c.width, c.patch, self.dtype, c.stride, has_bias=False, name="patch_embed"
        )(frames.astype(self.dtype))
        self._check_patches(frames.shape[1:3], x.shape[1])
        x = self._with_class_and_positions(x, class_offset)
        before_last = x = LayerNorm(self.dtype, epsilon=EPSILON, name="norm_before")(x)
        for i in range(c.depth):
            before_last = x
            x = x if between is None else between(i, x)
            x = block(c.heads, c.activation, self.dtype, name=f"block{i}")(x)
        return Tokens(before_last, x)

    def final_norm(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """LayerNorm of vectors of the stream."""
        return self.norm(x)

    def projected(self, x: Float[Array, "*n c"]) -> Float[Array, "*n e"]:
        """Normalised vectors of the stream in the space that images and texts share."""
        return x @ self.projection.astype(self.dtype)

    def _check_patches(self, pixels: tuple[int, int], count: int) -> None:
        """Raise InputError for frames of another size than that whose patches have positions."""
        positions = self.get_variable("params", "positional_embedding")
        if positions is not None and len(positions) != 1 + count:
            size = f"data.height × data.width = {pixels[0]} × {pixels[1]} pixels"
            raise InputError(
                f"{size} make {count} patches, and the model has positions of "
                f"{len(positions) - 1}: take the size that it was trained with"
            )

    def _with_class_and_positions(self, x: Array, class_offset: Array | None) -> Array:
        f, n, c = x.shape
        init = nn.initializers.normal(c**-0.5)
        token = self.param("class_embedding", init, (c,)).astype(self.dtype)
        positions = self.param("positional_embedding", init, (1 + n, c)).astype(self.dtype)
        token = jnp.broadcast_to(token, (f, c))
        if class_offset is not None:
            token = token + class_offset.astype(self.dtype)
        return jnp.concatenate([token[:, None], x], axis=1) + positions


class TextTower(nn.Module):
    """Prompts, one for each identity, as embedded tokens → vectors of the space shared with images.

    config: the section `model.clip`; remat: a policy of ops/remat.py, for each block.
    """

    config: ConfigDict
    dtype: jnp.dtype
    remat: str = "nothing"

    @nn.compact
    def __call__(self, prompts: Float[Array, "ids n d"], end: int) -> Float[Array, "ids e"]:
        """The vectors of the tokens at `end`, where a prompt ends; no token behind it matters."""
        c, block = self.config.text, remat(Block, self.remat)
        init = nn.initializers.normal(0.01)
        positions = self.param("positional_embedding", init, (c.positions, c.width))
        x = prompts[:, : end + 1].astype(self.dtype)  # a token sees none behind it
        x = x + positions[: end + 1].astype(self.dtype)
        for i in range(c.depth):
            given = c.heads, self.config.activation, self.dtype, True
            x = block(*given, name=f"block{i}")(x)
        x = LayerNorm(self.dtype, epsilon=EPSILON, name="norm")(x[:, end])
        init = nn.initializers.normal(c.width**-0.5)
        projection = self.param("projection", init, (c.width, self.config.embedding))
        return x @ projection.astype(self.dtype)

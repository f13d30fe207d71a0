"""SASGL: silhouette-like maps from frozen tokens, and the gait network on them.

Source: DinoGRL's dinov2 branches, which follow BigGait.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from dinogrl_jax.models.dinov2 import Tokens
from dinogrl_jax.models.layers import DENSE_INIT, BatchNorm, Conv, ConvNorm, Dense
from dinogrl_jax.models.resnet import BasicBlock, Stages
from dinogrl_jax.ops.activations import gelu, relu
from dinogrl_jax.ops.normalisation import Moments
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.remat import remat
from dinogrl_jax.ops.upsampling import upsample_2x, upsampled_dense, upsampled_moments


class Maps(NamedTuple):
    """What the branches make of the tokens, at twice the tokens' rows and columns."""

    mask: Float[Array, "f h w 2"]  # class probabilities, with gradient
    foreground: Float[Array, "f h w"]  # probability of the person after closing, detached
    denoising: Float[Array, "f h w c"]  # zero outside the foreground
    appearance: Float[Array, "f h w c"]
    mask_mse: Float[Array, ""]  # of the mask branch's reconstruction of its input


class Branches(nn.Module):
    """Mask, denoising and appearance-map branches.

    config: the section `model` of DinoGRL's settings.
    """

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Maps:
        c, dtype = self.config.sasgl, self.dtype
        mask_branch = MaskBranch(c.mask_dropout, dtype, name="mask_branch")
        mask, mse = mask_branch(tokens.last, train=train)
        foreground = closed_foreground(jax.lax.stop_gradient(mask))
        selected = foreground != 0
        batch = upsampled_moments(tokens.taps, selected) if train else None
        denoising = remat(DenoisingBranch, self.config.remat, static_argnums=4)(
            c.hidden, c.map_channels, dtype, name="denoising_branch"
        )(tokens.taps, selected, batch, train)
        appearance = remat(AppearanceBranch, self.config.remat, static_argnums=4)(
            c.map_channels, dtype, name="appearance_branch"
        )(tokens.taps, selected, batch, train)
        return Maps(mask, foreground, denoising, appearance, mse)


class MaskBranch(nn.Module):
    """Class probabilities at twice the rows and columns, and the error of tokens made of them."""

    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "f h w c"], *, train: bool
    ) -> tuple[Float[Array, "f h2 w2 2"], Float[Array, ""]]:
        x = upsample_2x(tokens)
        y = nn.Dropout(self.dropout, deterministic=not train)(x)
        y = BatchNorm(x.shape[-1], affine=False, name="bn_s")(y, train=train)
        mask = softmax(Dense(2, self.dtype, name="down_sampling")(y))
        made = Dense(x.shape[-1], self.dtype, name="up_sampling")(mask)
        error = (made - x).astype(mask.dtype)
        # A mean of means: one sum of all, number by number, is off by 1e-4 (XLA on a CPU).
        return mask, jnp.square(error).mean(-1).mean()


class DenoisingBranch(nn.Module):
    """Shares of a position in `channels` maps (softmax), zero where nothing is selected."""

    hidden: int
    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "f h w c"],
        selected: Bool[Array, "f h2 w2"],
        batch: Moments | None,
        train: bool,
    ) -> Float[Array, "f h2 w2 c2"]:
        x = UpsampledNormDense(self.hidden, self.dtype, name="hidden")(tokens, batch)
        x = BatchNorm(self.hidden, affine=False, name="bn_hidden")(x, train=train, mask=selected)
        x = softmax(Dense(self.channels, self.dtype, name="down_sampling")(gelu(x)))
        return jnp.where(selected[..., None], x, 0)


class AppearanceBranch(nn.Module):
    """`channels` maps in 0…1 (sigmoid), zero where nothing is selected."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "f h w c"],
        selected: Bool[Array, "f h2 w2"],
        batch: Moments | None,
        train: bool,
    ) -> Float[Array, "f h2 w2 c2"]:
        x = UpsampledNormDense(self.channels, self.dtype, name="down_sampling")(tokens, batch)
        x = BatchNorm(self.channels, affine=False, name="bn_t")(x, train=train, mask=selected)
        x = jax.nn.sigmoid(x.astype(accumulation_dtype(self.dtype)))
        return jnp.where(selected[..., None], x, 0)


class UpsampledNormDense(nn.Module):
    """Tokens at twice their rows and columns, normalised without scale and shift, then linear.

    batch: the moments of the upsampled tokens in training, which both branches share; without them
    the running statistics normalise.
    """

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "f h w c"], batch: Moments | None
    ) -> Float[Array, "f h2 w2 d"]:
        norm = BatchNorm(tokens.shape[-1], affine=False, name="norm")
        kernel = self.param("kernel", DENSE_INIT, (tokens.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        mean, factor = norm.mean_and_factor(batch)
        if batch is not None:
            norm.update(batch)
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return upsampled_dense(tokens, mean, factor, kernel, bias)


class GaitNetwork(nn.Module):
    """Two maps [f, h, w, c] → one feature map of a ResNet [f, h/4, w/4, 32·width].

    config: the section `model` of DinoGRL's settings.
    """

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        denoising: Float[Array, "f h w c"],
        appearance: Float[Array, "f h w c"],
        *,
        train: bool,
    ) -> Float[Array, "f h4 w4 d"]:
        c, keeps = self.config, self.config.remat
        x = [
            PreBlock(c.sasgl.pre_channels, self.dtype, keeps, name=f"pre_{name}")(y, train=train)
            for name, y in (("denoising", denoising), ("appearance", appearance))
        ]
        fusion = remat(AttentionFusion, keeps, static_argnums=3)(self.dtype, name="fusion")
        stages = Stages(c.resnet.stages, c.resnet.width, self.dtype, keeps, name="stages")
        return stages(fusion(*x, train), train=train)


class PreBlock(nn.Module):
    """3×3 convolution, BatchNorm, ReLU and one basic block."""

    channels: int
    dtype: jnp.dtype
    remat: str = "nothing"

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c2"]:
        x = relu(ConvNorm(self.channels, 3, 1, self.dtype, name="conv1")(x, train=train))
        return remat(BasicBlock, self.remat, static_argnums=2)(self.dtype, name="block")(x, train)


class AttentionFusion(nn.Module):
    """A weighted sum of two maps; each position and channel has its own weights.

    The 2c logits are read as (channel, source) with the source fastest, as published.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, first: Float[Array, "f h w c"], second: Float[Array, "f h w c"], train: bool
    ) -> Float[Array, "f h w c"]:
        channels = first.shape[-1]
        squeezed = max(channels // 16, 1)
        x = jnp.concatenate([first, second], axis=-1)
        x = relu(ConvNorm(squeezed, 1, 1, self.dtype, name="conv1")(x, train=train))
        x = relu(ConvNorm(squeezed, 3, 1, self.dtype, name="conv2")(x, train=train))
        logits = Conv(2 * channels, 1, 1, self.dtype, name="conv3")(x)
        weights = jax.nn.softmax(logits.reshape(*logits.shape[:-1], channels, 2))
        return first * weights[..., 0] + second * weights[..., 1]


def softmax(logits: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Shares of the channels, at least in float32."""
    return jax.nn.softmax(logits.astype(accumulation_dtype(logits.dtype)))


def closed_foreground(mask: Float[Array, "f h w 2"]) -> Float[Array, "f h w"]:
    """The person's probability inside the closed silhouette, 1 in its core and 0 outside.

    The branch does not know which of its classes is the person: class 1 is taken where class 0
    fills more than half of the top and bottom rows (5 of 64 each), which people do not.
    """
    f, h, w, _ = mask.shape
    border = max(round(5 / 64 * h), 1)
    full = jnp.round(mask[..., 0])
    filled = full[:, :border].sum((1, 2)) + full[:, -border:].sum((1, 2))
    inverted = filled > w * border
    person = jnp.where(inverted[:, None, None], mask[..., 1], mask[..., 0])
    dilated = nn.max_pool(jnp.round(person)[..., None], (3, 3), padding="SAME")
    eroded = -nn.max_pool(-dilated, (5, 5), padding="SAME")
    dilated, eroded = dilated[..., 0] > 0.5, eroded[..., 0] > 0.5
    return jnp.where(eroded, 1.0, jnp.where(dilated ^ eroded, person, 0.0)).astype(person.dtype)

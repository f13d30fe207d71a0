"""SASGL: silhouette-like maps from frozen tokens, and the gait network on them.

Source: DinoGRL's dinov2 branches, which follow BigGait.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from dinogrl_jax.models.dinov2 import Tokens
from dinogrl_jax.models.resnet import BasicBlock, Conv, Stages
from dinogrl_jax.ops.layers import (
    accumulation_dtype,
    apart,
    apart_backwards,
    gelu,
    product,
    recomputed,
    relu,
)
from dinogrl_jax.ops.normalisation import BatchNorm, Moments
from dinogrl_jax.ops.resize import bilinear_matrix, resized

DENSE_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's linear layer


class Maps(NamedTuple):
    """What the branches make of the tokens, at twice the tokens' rows and columns."""

    mask: Float[Array, "f h w 2"]  # class probabilities, with gradient
    foreground: Float[Array, "f h w"]  # probability of the person after closing, detached
    denoising: Float[Array, "f h w c"]  # zero outside the foreground
    appearance: Float[Array, "f h w c"]
    mask_mse: Float[Array, ""]  # of the mask branch's reconstruction of its input


class Branches(nn.Module):
    """Mask, denoising and appearance-map branches.

    config: the section `model.sasgl` of `dinogrl_jax.config`.
    """

    config: ConfigDict
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Maps:
        mask, mse = MaskBranch(self.config.mask_dropout, self.dtype, name="mask_branch")(
            tokens.last, train=train
        )
        foreground = closed_foreground(jax.lax.stop_gradient(mask))
        selected = foreground != 0
        given = doubled_moments(tokens.taps, selected) if train else None
        denoising, appearance = (
            recomputed(branch, tokens.taps, selected, given, train=train)
            for branch in (
                DenoisingBranch(
                    self.config.hidden,
                    self.config.map_channels,
                    self.dtype,
                    name="denoising_branch",
                ),
                AppearanceBranch(self.config.map_channels, self.dtype, name="appearance_branch"),
            )
        )
        return Maps(mask, foreground, denoising, appearance, mse)


class MaskBranch(nn.Module):
    """Class probabilities at twice the rows and columns, and the error of the tokens made of them.

    Without dropout the linear layer in front of the classes commutes with bilinear upsampling.
    """

    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "f h w c"], *, train: bool
    ) -> tuple[Float[Array, "f h2 w2 2"], Float[Array, ""]]:
        x = doubled(tokens)
        kept = nn.Dropout(self.dropout, deterministic=False)(x) if train else tokens
        normal = BatchNorm(affine=False, name="bn_s")(kept, train=train)
        logits = dense(2, self.dtype, "down_sampling")(normal)
        logits = logits if train else doubled(logits)
        mask = jax.nn.softmax(logits.astype(accumulation_dtype(self.dtype)))
        made = dense(x.shape[-1], self.dtype, "up_sampling")(mask.astype(self.dtype))
        error = (made - x).astype(accumulation_dtype(self.dtype))
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
        given: Moments | None,
        *,
        train: bool,
    ) -> Float[Array, "f h2 w2 c2"]:
        x = BatchNorm(affine=False, name="bn_s")(tokens, train=train, given=given)
        # A linear layer commutes with bilinear upsampling: it runs at a quarter of the positions.
        x = doubled(dense(self.hidden, self.dtype, "hidden")(x))
        x = BatchNorm(affine=False, name="bn_hidden")(x, train=train, mask=selected)
        x = dense(self.channels, self.dtype, "down_sampling")(gelu(x))
        x = jax.nn.softmax(x.astype(accumulation_dtype(self.dtype)))
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
        given: Moments | None,
        *,
        train: bool,
    ) -> Float[Array, "f h2 w2 c2"]:
        x = BatchNorm(affine=False, name="bn_s")(tokens, train=train, given=given)
        x = doubled(dense(self.channels, self.dtype, "down_sampling")(x))
        x = BatchNorm(affine=False, name="bn_t")(x, train=train, mask=selected)
        x = jax.nn.sigmoid(x.astype(accumulation_dtype(self.dtype)))
        return jnp.where(selected[..., None], x, 0)


class GaitNetwork(nn.Module):
    """Two maps [f, h, w, c] → one feature map of a ResNet [f, h/4, w/4, 32·width]."""

    stages: Sequence[int]
    width: int
    pre_channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        denoising: Float[Array, "f h w c"],
        appearance: Float[Array, "f h w c"],
        *,
        train: bool,
    ) -> Float[Array, "f h4 w4 d"]:
        blocks = {"pre_denoising": denoising, "pre_appearance": appearance}
        pre = [
            PreBlock(self.pre_channels, self.dtype, name=name)(x.astype(self.dtype), train=train)
            for name, x in blocks.items()
        ]
        x = recomputed(AttentionFusion(self.dtype, name="fusion"), *pre, train=train)
        return Stages(self.stages, self.width, self.dtype, name="stages")(x, train=train)


class PreBlock(nn.Module):
    """3×3 convolution, BatchNorm, ReLU and one basic block."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c2"]:
        x = recomputed(self._begin, x, train=train)
        return BasicBlock(self.dtype, name="block")(x, train=train)

    def _begin(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c2"]:
        x = Conv(self.channels, 3, 1, self.dtype, name="conv1")(x)
        return relu(BatchNorm(name="bn1")(x, train=train))


class AttentionFusion(nn.Module):
    """A weighted sum of two maps; each position and channel has its own weights.

    The 2c logits are read as (channel, source) with the source fastest, as published.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, first: Float[Array, "f h w c"], second: Float[Array, "f h w c"], *, train: bool
    ) -> Float[Array, "f h w c"]:
        channels = first.shape[-1]
        squeezed = max(channels // 16, 1)
        x = jnp.concatenate([first, second], axis=-1)
        x = Conv(squeezed, 1, 1, self.dtype, name="conv1")(x)
        x = relu(BatchNorm(name="bn1")(x, train=train))
        x = Conv(squeezed, 3, 1, self.dtype, name="conv2")(x)
        x = relu(BatchNorm(name="bn2")(x, train=train))
        logits = Conv(2 * channels, 1, 1, self.dtype, name="conv3")(x)
        weights = jax.nn.softmax(logits.reshape(*logits.shape[:-1], channels, 2))
        return first * weights[..., 0] + second * weights[..., 1]


def dense(features: int, dtype, name: str) -> Callable[[Array], Array]:
    def multiplied(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return product(x, kernel)

    layer = nn.Dense(
        features, dtype=dtype, kernel_init=DENSE_INIT, dot_general=multiplied, name=name
    )
    return lambda x: apart_backwards(layer(x))


@jax.custom_vjp
def doubled(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """x at twice its rows and columns, bilinear."""
    ways = {"tpu": _doubled_by_products, "default": _doubled_at_once}
    return apart(jax.lax.platform_dependent(x, **ways))


def _doubled_by_products(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    return resized(x, *(bilinear_matrix(n, 2 * n, x.dtype) for n in x.shape[1:3]))


def _doubled_at_once(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """From each position and three neighbours: by rows first, they would be in memory between."""
    wide = accumulation_dtype(x.dtype)
    (row, row_beside), (column, column_beside) = (_halves(n) for n in x.shape[1:3])

    def at(row: np.ndarray, column: np.ndarray) -> Float[Array, "f h2 w2 c"]:
        return x[:, row][:, :, column].astype(wide)

    near = at(row_beside, column) + at(row, column_beside)
    y = 0.5625 * at(row, column) + 0.1875 * near + 0.0625 * at(row_beside, column_beside)
    return y.astype(x.dtype)


def _halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each half of n positions, in order: the position, and the one beside this half."""
    half = np.arange(2 * n)
    return half // 2, np.clip(half // 2 + np.where(half % 2, 1, -1), 0, n - 1)


def _doubled_backward(_: None, g: Float[Array, "f h2 w2 c"]) -> tuple[Float[Array, "f h w c"]]:
    ways = {"tpu": _halved_by_products, "default": _halved_at_once}
    return (apart(jax.lax.platform_dependent(g, **ways)),)


def _halved_by_products(g: Float[Array, "f h2 w2 c"]) -> Float[Array, "f h w c"]:
    return resized(g, *(bilinear_matrix(n // 2, n, g.dtype).T for n in g.shape[1:3]))


def _halved_at_once(g: Float[Array, "f h2 w2 c"]) -> Float[Array, "f h w c"]:
    """The transpose of doubling."""
    x = g.astype(accumulation_dtype(g.dtype))
    for axis in (1, 2):
        n, taken = x.shape[axis], partial(jnp.take, x, axis=axis, mode="clip")
        first = np.arange(0, n, 2)
        beside = taken(first - 1) + taken(first + 2)  # at the border the own ones
        x = 0.75 * (taken(first) + taken(first + 1)) + 0.25 * beside
    return x.astype(g.dtype)


doubled.defvjp(lambda x: (doubled(x), None), _doubled_backward)


def doubled_moments(x: Float[Array, "f h w c"], selected: Bool[Array, "f h2 w2"]) -> Moments:
    """`moments(doubled(x), selected)` without the positions that doubling adds.

    With U the doubling of a frame, the selected squares of U·(x − μ) are a quadratic form whose
    matrix Uᵀ·diag(selected)·U is the same for all channels.
    """
    f, h, w, c = x.shape
    dtype = accumulation_dtype(x.dtype)
    rows, columns = (jnp.asarray(bilinear_matrix(n, 2 * n, dtype), dtype) for n in (h, w))
    weight = selected.astype(dtype)
    count = weight.sum()
    x = x.reshape(f, h * w, c)
    share = jnp.einsum("fop,oh,pw->fhw", weight, rows, columns).reshape(f, h * w)
    mean = jnp.einsum("fn,fnc->c", share, x.astype(dtype)) / jnp.maximum(count, 1)
    square_rows, square_columns = (jnp.einsum("oh,oi->ohi", m, m) for m in (rows, columns))
    form = jnp.einsum("fop,ohi->fphi", weight, square_rows)
    form = jnp.einsum("fphi,pwu->fhwiu", form, square_columns).reshape(f, h * w, h * w)
    x = (x.astype(dtype) - mean).astype(x.dtype)
    formed = jnp.einsum("fnm,fmc->fnc", form.astype(x.dtype), x, preferred_element_type=dtype)
    var = (x * formed).sum((0, 1))
    return Moments(mean, var / jnp.maximum(count, 1), count)


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

"""Layers that models share: linear, convolution, LayerNorm, BatchNorm."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.convolution import affine_convolution, convolution
from dinogrl_jax.ops.matmul import matmul
from dinogrl_jax.ops.normalisation import Moments, batch_norm, layer_norm
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.remat import NARROW, checkpoint_name

Initializer = nn.initializers.Initializer
# PyTorch draws a linear layer's weights so, and torchvision the convolutions of a ResNet.
DENSE_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Dense(nn.Module):
    """A linear layer with bias."""

    features: int
    dtype: jnp.dtype
    kernel_init: Initializer = DENSE_INIT

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return matmul(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


class Conv(nn.Module):
    """A square convolution without bias that keeps the image's size at stride 1."""

    features: int
    size: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 d"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", CONV_INIT, shape)
        return convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


class ConvNorm(nn.Module):
    """A square convolution without bias, then BatchNorm.

    kept: the backward pass keeps what the convolution returns, also inside a block whose rest it
    computes again.
    """

    features: int
    size: int
    stride: int
    dtype: jnp.dtype
    kept: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 d"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", CONV_INIT, shape)
        norm = BatchNorm(self.features, name="norm")
        if train:
            y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
            return norm(checkpoint_name(y, NARROW) if self.kept else y, train=True)
        return affine_convolution(
            x.astype(self.dtype), kernel, self.stride, *norm.factor_and_shift()
        )


class LayerNorm(nn.Module):
    """Normalisation of every position over its channels; its sums at least in float32.

    Source: torch.nn.LayerNorm.
    """

    dtype: jnp.dtype
    affine: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        y = layer_norm(x.astype(accumulation_dtype(self.dtype)), self.epsilon)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
            y = y * scale + bias
        return y.astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    It normalises with the biased variance and keeps the unbiased one, n/(n − 1) times it. In
    training the statistics are those of the global batch under `jax.jit`, of the positions that the
    mask selects. A batch with fewer than two positions leaves the running statistics as they are.

    Source: torch.nn.BatchNorm1d/2d.
    """

    features: int
    affine: bool = True
    scale_init: Initializer = nn.initializers.ones
    epsilon: float = 1e-5
    momentum: float = 0.1

    def setup(self) -> None:
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, self.features)
        self.var = self.variable("batch_stats", "var", jnp.ones, self.features)
        if self.affine:
            self.scale = self.param("scale", self.scale_init, (self.features,))
            self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(
        self, x: Float[Array, "*n c"], *, train: bool, mask: Bool[Array, "*n"] | None = None
    ) -> Float[Array, "*n c"]:
        scale, bias = self.scale_and_bias(accumulation_dtype(x.dtype))
        if train:
            y, found = batch_norm(x, mask, scale, bias, self.epsilon)
            self.update(found)
            return y
        mean, factor = self.mean_and_factor()
        return ((x.astype(factor.dtype) - mean) * (factor * scale) + bias).astype(x.dtype)

    def scale_and_bias(self, dtype=jnp.float32) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        if self.affine:
            return self.scale, self.bias
        return jnp.ones(self.features, dtype), jnp.zeros(self.features, dtype)

    def mean_and_factor(
        self, batch: Moments | None = None
    ) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """What is subtracted and what multiplies then: of a batch, or the running statistics."""
        mean, var = (self.mean.value, self.var.value) if batch is None else batch[:2]
        return mean, jax.lax.rsqrt(var + self.epsilon)

    def factor_and_shift(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """What evaluation multiplies by, and what it adds then."""
        scale, bias = self.scale_and_bias()
        mean, factor = self.mean_and_factor()
        return factor * scale, bias - mean * (factor * scale)

    def update(self, batch: Moments) -> None:
        """Take the moments of a batch into the running statistics."""
        if self.is_initializing():
            return
        batch = jax.lax.stop_gradient(batch)
        unbiased = batch.var * batch.count / jnp.maximum(batch.count - 1, 1)
        rate = jnp.where(batch.count > 1, self.momentum, 0.0).astype(unbiased.dtype)
        for running, new in ((self.mean, batch.mean), (self.var, unbiased)):
            running.value = ((1 - rate) * running.value + rate * new).astype(running.value.dtype)

"""ResNet with bottleneck blocks whose last stage keeps stride 1 (torchvision's layout)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models.layers import ConvNorm
from dinogrl_jax.ops.activations import relu
from dinogrl_jax.ops.barrier import barrier
from dinogrl_jax.ops.convolution import max_pool
from dinogrl_jax.ops.remat import remat


class Stem(nn.Module):
    """7×7 convolution, BatchNorm, ReLU and maximum pooling: a quarter of the rows and columns."""

    width: int
    dtype: jnp.dtype
    has_relu: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "f h w 3"], train: bool) -> Float[Array, "f h4 w4 c"]:
        x = ConvNorm(self.width, 7, 2, self.dtype, name="conv1")(x, train=train)
        return max_pool(relu(x) if self.has_relu else x)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; 4·width channels come out."""

    width: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], train: bool) -> Float[Array, "f h2 w2 c2"]:
        wide = 4 * self.width

        def conv_norm(name: str, x: Array, features: int, size: int, stride: int = 1) -> Array:
            kept = size == 3  # a quarter of the block's input, and most of its work
            return ConvNorm(features, size, stride, self.dtype, kept, name=name)(x, train=train)

        y = relu(conv_norm("conv1", x, self.width, 1))
        y = relu(conv_norm("conv2", y, self.width, 3, self.stride))
        y = conv_norm("conv3", y, wide, 1)
        if self.stride != 1 or x.shape[-1] != wide:
            x = conv_norm("shortcut", x, wide, 1, self.stride)
        return relu(x + y)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], train: bool) -> Float[Array, "f h w c"]:
        channels = x.shape[-1]
        y = relu(ConvNorm(channels, 3, 1, self.dtype, name="conv1")(x, train=train))
        y = ConvNorm(channels, 3, 1, self.dtype, kept=True, name="conv2")(y, train=train)
        return relu(x + y)


class Stages(nn.Module):
    """layer1 … layerN: strides 1, 2, 2, … and 1 in the last.

    remat: a policy of `ops.remat` for what the backward pass keeps of each block.
    """

    stages: Sequence[int]
    width: int
    dtype: jnp.dtype
    remat: str = "nothing"

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        block_of = remat(Bottleneck, self.remat, static_argnums=2)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                strided = block == 0 and 0 < stage < len(self.stages) - 1
                name = f"layer{stage + 1}_block{block}"
                width, stride = self.width * 2**stage, 2 if strided else 1
                x = barrier(block_of(width, stride, self.dtype, name=name)(x, train))
        return x

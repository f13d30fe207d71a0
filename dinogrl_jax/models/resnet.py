"""ResNet with bottleneck blocks whose last stage keeps stride 1 (torchvision's layout)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from dinogrl_jax.layers import BatchNorm

KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


# Training keeps what convolutions return and the normalisations' moments, and computes normalised
# and rectified maps again in the backward pass: they are as large, and cost one read.
KEPT = jax.checkpoint_policies.save_only_these_names("conv", "moments")


class Conv(nn.Module):
    """A square convolution without bias that keeps the image's size at stride 1."""

    features: int
    size: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c2"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape).astype(self.dtype)
        pad = (self.size // 2, self.size // 2)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel,
            window_strides=(self.stride, self.stride),
            padding=(pad, pad),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return checkpoint_name(y, "conv")


class Stem(nn.Module):
    """7×7 convolution, BatchNorm and maximum pooling: a quarter of the rows and columns.

    There is no ReLU between BatchNorm and pooling, as in the published code.
    """

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w 3"], *, train: bool) -> Float[Array, "f h4 w4 c"]:
        x = Conv(self.width, 7, 2, self.dtype, name="conv1")(x.astype(self.dtype))
        x = BatchNorm(name="bn1")(x, train=train)
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; 4·width channels come out."""

    width: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], train: bool) -> Float[Array, "f h2 w2 c2"]:
        y = Conv(self.width, 1, 1, self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        y = Conv(self.width, 3, self.stride, self.dtype, name="conv2")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train=train))
        y = Conv(4 * self.width, 1, 1, self.dtype, name="conv3")(y)
        y = BatchNorm(name="bn3")(y, train=train)
        if self.stride != 1 or x.shape[-1] != 4 * self.width:
            x = Conv(4 * self.width, 1, self.stride, self.dtype, name="downsample_conv")(x)
            x = BatchNorm(name="downsample_bn")(x, train=train)
        return nn.relu(x + y)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c"]:
        y = Conv(x.shape[-1], 3, 1, self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        y = Conv(x.shape[-1], 3, 1, self.dtype, name="conv2")(y)
        return nn.relu(x + BatchNorm(name="bn2")(y, train=train))


class Stages(nn.Module):
    """layer1 … layerN: strides 1, 2, 2, … and 1 in the last."""

    stages: Sequence[int]
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        Block = nn.remat(Bottleneck, static_argnums=(2,), policy=KEPT)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                strided = block == 0 and 0 < stage < len(self.stages) - 1
                x = Block(
                    self.width * 2**stage,
                    stride=2 if strided else 1,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_block{block}",
                )(x, train)
        return x

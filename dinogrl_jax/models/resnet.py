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
        if self.size == 1:  # a product: its gradient needs no transposed copy of x
            x = x[:, :: self.stride, :: self.stride].astype(self.dtype)
            return checkpoint_name(jnp.einsum("fhwc,cd->fhwd", x, kernel[0, 0]), "conv")
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
        for stage, blocks in enumerate(self.stages):
            width, last = self.width * 2**stage, len(self.stages) - 1
            stride = 2 if 0 < stage < last else 1
            names = [f"layer{stage + 1}_block{block}" for block in range(blocks)]
            x = Bottleneck(width, stride, self.dtype, name=names[0])(x, train)
            if self.is_initializing():
                for name in names[1:]:
                    x = Bottleneck(width, 1, self.dtype, name=name)(x, train)
            elif blocks > 1:
                x = self._repeated(names[1:], width, x, train)
        return x

    def _repeated(self, names: list[str], width: int, x: Array, train: bool) -> Array:
        """Equal blocks as one loop: compiled once, and each computes its maps again only when its
        own gradient is due (a CPU's scheduler would do so for all blocks at once)."""
        block = Bottleneck(width, 1, self.dtype, parent=None)
        each = [
            {k: self.get_variable(k, name) for k in ("params", "batch_stats")} for name in names
        ]

        def body(x: Array, variables: dict) -> tuple[Array, dict]:
            if not train:
                return block.apply(variables, x, train), {}
            y, changed = block.apply(variables, x, train, mutable=["batch_stats"])
            return y, changed["batch_stats"]

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        x, batch_stats = jax.lax.scan(jax.checkpoint(body, policy=KEPT), x, stacked)
        if train:
            for i, name in enumerate(names):
                of_block = jax.tree.map(lambda leaf, i=i: leaf[i], batch_stats)
                self.put_variable("batch_stats", name, of_block)
        return x

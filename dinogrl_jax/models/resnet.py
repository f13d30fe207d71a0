"""ResNet with bottleneck blocks whose last stage keeps stride 1 (torchvision's layout)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.layers import BatchNorm, apart_backwards, product, recomputed
from dinogrl_jax.models.convolution import convolved

KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """A square convolution without bias that keeps the image's size at stride 1.

    One of size 1 is a matrix product: on a CPU its kernel's gradient takes half the time or less.
    """

    features: int
    size: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "f h w c"], factor: Float[Array, " c2"] | None = None
    ) -> Float[Array, "f h2 w2 c2"]:
        """factor: of each channel of the result."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape)
        kernel = (kernel if factor is None else kernel * factor).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.size == 1:
            x = x[:, :: self.stride, :: self.stride]
            return apart_backwards(product(x, kernel[0, 0]))
        return convolved(x, kernel, self.stride)


def evaluated(conv: Conv, norm: BatchNorm, x: Float[Array, "f h w c"]) -> Array:
    """`norm(conv(x), train=False)`, where the kernel takes the normalisation's factor."""
    factor, shift = norm.factor_and_shift()
    return conv(x, factor) + shift.astype(conv.dtype)


class Stem(nn.Module):
    """7×7 convolution, BatchNorm and maximum pooling: a quarter of the rows and columns.

    There is no ReLU between BatchNorm and pooling, as in the published code.
    """

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w 3"], *, train: bool) -> Float[Array, "f h4 w4 c"]:
        return recomputed(self._pooled, x, train=train)

    def _pooled(self, x: Float[Array, "f h w 3"], *, train: bool) -> Float[Array, "f h4 w4 c"]:
        x = Conv(self.width, 7, 2, self.dtype, name="conv1")(x)
        x = BatchNorm(name="bn1")(x, train=train)
        return max_pooled(x)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; 4·width channels come out.

    Training keeps the block's input and what its two narrow convolutions return; what the first one
    returns only from 512 channels on, for before it is large and soon computed again.
    """

    width: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        if not (train or self.is_initializing()):
            return self._evaluated(x)
        if self.width < 512:
            y = recomputed(self._begin, x, train=train)
        else:
            y = recomputed(Conv(self.width, 1, 1, self.dtype, name="conv1"), x)
            y = recomputed(self._middle, y, train=train)
        return recomputed(self._end, x, y, train=train)

    def _evaluated(self, x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c2"]:
        def step(conv: str, norm: str, x: Array, size: int, stride: int, channels: int) -> Array:
            of = Conv(channels, size, stride, self.dtype, name=conv)
            return evaluated(of, BatchNorm(name=norm), x)

        wide = 4 * self.width
        y = nn.relu(step("conv1", "bn1", x, 1, 1, self.width))
        y = nn.relu(step("conv2", "bn2", y, 3, self.stride, self.width))
        y = step("conv3", "bn3", y, 1, 1, wide)
        if self.stride != 1 or x.shape[-1] != wide:
            x = step("downsample_conv", "downsample_bn", x, 1, self.stride, wide)
        return nn.relu(x + y)

    def _begin(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        return self._middle(Conv(self.width, 1, 1, self.dtype, name="conv1")(x), train=train)

    def _middle(self, y: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c"]:
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        return Conv(self.width, 3, self.stride, self.dtype, name="conv2")(y)

    def _end(
        self, x: Float[Array, "f h w c"], y: Float[Array, "f h2 w2 c2"], *, train: bool
    ) -> Float[Array, "f h2 w2 c3"]:
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
        y = recomputed(self._begin, x, train=train)
        return recomputed(self._end, x, y, train=train)

    def _begin(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c"]:
        y = Conv(x.shape[-1], 3, 1, self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        return Conv(y.shape[-1], 3, 1, self.dtype, name="conv2")(y)

    def _end(
        self, x: Float[Array, "f h w c"], y: Float[Array, "f h2 w2 c2"], *, train: bool
    ) -> Float[Array, "f h2 w2 c3"]:
        return nn.relu(x + BatchNorm(name="bn2")(y, train=train))


class Stages(nn.Module):
    """layer1 … layerN: strides 1, 2, 2, … and 1 in the last."""

    stages: Sequence[int]
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                strided = block == 0 and 0 < stage < len(self.stages) - 1
                x = Bottleneck(
                    self.width * 2**stage,
                    stride=2 if strided else 1,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_block{block}",
                )(x, train=train)
                # Otherwise each reader of a block's output adds up the blocks before it again.
                x = jax.lax.optimization_barrier(x)
        return x


@jax.custom_vjp
def max_pooled(x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 c"]:
    """Maximum of 3×3 positions at every second row and column, beyond the border −∞.

    The gradient goes to the first maximum of a window, row by row. Written out, since the
    derivative of `reduce_window` keeps eight index arrays of x's size on a CPU.
    """
    return jnp.stack(_window(x)).max(0)


def _window(x: Float[Array, "f h w c"]) -> list[Float[Array, "f h2 w2 c"]]:
    """The nine positions of each window, row by row."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return [x[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]


def _max_pooled_forward(x: Array) -> tuple[Array, Array]:
    return max_pooled(x), x


def _max_pooled_backward(x: Array, g: Array) -> tuple[Array]:
    _, h, w, _ = x.shape
    rows, columns = 2 * g.shape[1] - 1, 2 * g.shape[2] - 1
    first = jnp.argmax(jnp.stack(_window(x)), axis=0)
    zero, total = jnp.zeros((), g.dtype), 0
    for k in range(9):
        i, j = divmod(k, 3)
        own = jnp.where(first == k, g, 0)
        ends = ((0, 0, 0), (i, h + 2 - i - rows, 1), (j, w + 2 - j - columns, 1), (0, 0, 0))
        total = total + jax.lax.pad(own, zero, ends)
    return (total[:, 1:-1, 1:-1],)


max_pooled.defvjp(_max_pooled_forward, _max_pooled_backward)

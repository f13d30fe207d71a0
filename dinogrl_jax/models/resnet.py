"""ResNet with bottleneck blocks whose last stage keeps stride 1 (torchvision's layout)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.ops.convolution import convolved
from dinogrl_jax.ops.layers import apart_backwards, half_precision, product, recomputed, relu
from dinogrl_jax.ops.normalisation import BatchNorm

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
        self,
        x: Float[Array, "f h w c"],
        factor: Float[Array, " c2"] | None = None,
        multiplied: Callable | None = None,
    ) -> Float[Array, "f h2 w2 c2"]:
        """factor: of each channel of the result. multiplied: (positions, matrix) → the result."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape)
        x = x.astype(self.dtype)
        if self.size == 1:
            x = x[:, :: self.stride, :: self.stride]
        if multiplied is not None:
            return multiplied(x, kernel[0, 0])
        kernel = (kernel if factor is None else kernel * factor).astype(self.dtype)
        if self.size == 1:
            y = apart_backwards(product(x.reshape(-1, x.shape[-1]), kernel[0, 0]))
            return y.reshape(*x.shape[:-1], self.features)
        return convolved(x, kernel, self.stride)


def evaluated(conv: Conv, norm: BatchNorm, x: Float[Array, "f h w c"]) -> Array:
    """`norm(conv(x), train=False)`, where the kernel takes the normalisation's factor."""
    factor, shift = norm.factor_and_shift()
    return conv(x, factor) + shift.astype(conv.dtype)


def normalised(conv: Conv, norm: BatchNorm, x: Float[Array, "f h w c"], *, train: bool) -> Array:
    """`norm(conv(x), train=train)`, in half precision without conv(x) if that has more channels."""
    wider = conv.size == 1 and x.shape[-1] < conv.features
    if train and wider and half_precision(conv.dtype):
        return conv(x, multiplied=lambda x, kernel: norm(x, kernel=kernel, train=True))
    return norm(conv(x), train=train)


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
        y = relu(step("conv1", "bn1", x, 1, 1, self.width))
        y = relu(step("conv2", "bn2", y, 3, self.stride, self.width))
        y = step("conv3", "bn3", y, 1, 1, wide)
        if self.stride != 1 or x.shape[-1] != wide:
            x = step("downsample_conv", "downsample_bn", x, 1, self.stride, wide)
        return relu(x + y)

    def _begin(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c2"]:
        return self._middle(Conv(self.width, 1, 1, self.dtype, name="conv1")(x), train=train)

    def _middle(self, y: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h2 w2 c"]:
        y = relu(BatchNorm(name="bn1")(y, train=train))
        return Conv(self.width, 3, self.stride, self.dtype, name="conv2")(y)

    def _end(
        self, x: Float[Array, "f h w c"], y: Float[Array, "f h2 w2 c2"], *, train: bool
    ) -> Float[Array, "f h2 w2 c3"]:
        y = relu(BatchNorm(name="bn2")(y, train=train))
        conv = Conv(4 * self.width, 1, 1, self.dtype, name="conv3")
        y = normalised(conv, BatchNorm(name="bn3"), y, train=train)
        if self.stride != 1 or x.shape[-1] != 4 * self.width:
            conv = Conv(4 * self.width, 1, self.stride, self.dtype, name="downsample_conv")
            x = normalised(conv, BatchNorm(name="downsample_bn"), x, train=train)
        # As rows, since a product that a GPU ends with this sum would overwrite another view of x.
        rows = y.reshape(-1, y.shape[-1]) + x.reshape(-1, x.shape[-1])
        return relu(rows).reshape(y.shape)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c"]:
        y = recomputed(self._begin, x, train=train)
        return recomputed(self._end, x, y, train=train)

    def _begin(self, x: Float[Array, "f h w c"], *, train: bool) -> Float[Array, "f h w c"]:
        y = Conv(x.shape[-1], 3, 1, self.dtype, name="conv1")(x)
        y = relu(BatchNorm(name="bn1")(y, train=train))
        return Conv(y.shape[-1], 3, 1, self.dtype, name="conv2")(y)

    def _end(
        self, x: Float[Array, "f h w c"], y: Float[Array, "f h2 w2 c2"], *, train: bool
    ) -> Float[Array, "f h2 w2 c3"]:
        return relu(x + BatchNorm(name="bn2")(y, train=train))


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
    first = jnp.argmax(jnp.stack(_window(x)), axis=0)
    own = [[jnp.where(first == 3 * i + j, g, 0) for j in range(3)] for i in range(3)]
    rows = [_unwindowed(column, axis=1) for column in zip(*own, strict=True)]
    return (_unwindowed(rows, axis=2)[:, :h, :w],)


def _unwindowed(thirds: Sequence[Array], axis: int) -> Array:
    """Sums at every position, of the first, second and third positions of windows.

    The first one of a window is the last one of the window before it.
    """
    first, second, third = thirds
    ends = [(0, 0, 0)] * first.ndim
    ends[axis] = (-1, 1, 0)
    pair = second, third + jax.lax.pad(first, jnp.zeros((), first.dtype), ends)
    x = jnp.stack(pair, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


max_pooled.defvjp(_max_pooled_forward, _max_pooled_backward)

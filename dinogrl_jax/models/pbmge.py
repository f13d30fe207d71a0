"""PBMGE: the two streams enhance each other part by part, coarse to fine."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.layers import accumulation_dtype

EPSILON, MOMENTUM = 1e-5, 0.1  # of every BatchNorm here


class Lifted(NamedTuple):
    """The scalars that remain of one `enhance` module's 256-channel lifts.

    The affinity is F[i, j] = (a·qᵢ·sⱼ + b·qᵢ + c·sⱼ + d)/n. The shared product relu(F)·gᵀ, which
    W1 reduces to one channel, is Σⱼ relu(F[i, j])·(slope·sⱼ + offset) + bias; the specific one is
    the same with relu(−F) and W2.
    """

    a: Array
    b: Array
    c: Array
    d: Array
    slope: Float[Array, " 2"]
    offset: Float[Array, " 2"]
    bias: Float[Array, " 2"]


class Enhance(nn.Module):
    """The parameters of one direction; `lifted` is all of them that the arithmetic needs.

    Pairs are (shared, specific), the published W1 and W2. Both start with scale and shift zero, so
    that PBMGE starts as the identity.
    """

    channels: int = 256

    def setup(self) -> None:
        self.theta, self.phi, self.g = (self._lift(name, 1) for name in ("theta", "phi", "g"))
        self.w = tuple(self._lift(name, self.channels) for name in ("shared", "specific"))
        self.scale = self._pair("scale", nn.initializers.zeros)
        self.shift = self._pair("shift", nn.initializers.zeros)
        self.mean = self._statistic("mean", jnp.zeros)
        self.var = self._statistic("var", jnp.ones)

    def _lift(self, name: str, fan_in: int) -> tuple[Array, Array]:
        """Weight and bias, drawn as PyTorch draws a convolution's."""
        bound = fan_in**-0.5
        biases = self.channels if fan_in == 1 else 1

        def uniform(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        return (
            self.param(f"{name}_weight", uniform, (self.channels,)),
            self.param(f"{name}_bias", uniform, (biases,)),
        )

    def _pair(self, name: str, init: nn.initializers.Initializer) -> tuple[Array, Array]:
        return tuple(self.param(f"{w}_{name}", init, (1,)) for w in ("shared", "specific"))

    def _statistic(self, name: str, init) -> tuple[nn.Variable, nn.Variable]:
        pair = ("shared", "specific")
        return tuple(self.variable("batch_stats", f"{w}_{name}", init, 1) for w in pair)

    def lifted(self) -> Lifted:
        (theta, theta_bias), (phi, phi_bias), (g, g_bias) = self.theta, self.phi, self.g
        w = jnp.stack([weight for weight, _ in self.w])
        bias = jnp.concatenate([bias for _, bias in self.w])
        a, b, c, d = theta @ phi, theta @ phi_bias, theta_bias @ phi, theta_bias @ phi_bias
        return Lifted(a, b, c, d, slope=w @ g, offset=w @ g_bias, bias=bias)

    def affine(self) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
        return jnp.concatenate(self.scale), jnp.concatenate(self.shift)

    def running(self) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
        mean, var = ([v.value for v in pair] for pair in (self.mean, self.var))
        return jnp.concatenate(mean), jnp.concatenate(var)

    def update(self, mean: Float[Array, "n 2"], var: Float[Array, "n 2"], count: int) -> None:
        """Keeps the running statistics after n visits, in their order."""
        n = len(mean)
        decay = MOMENTUM * (1 - MOMENTUM) ** np.arange(n - 1, -1, -1)[:, None]
        unbiased = var * (count / (count - 1))
        for pair, new in ((self.mean, mean), (self.var, unbiased)):
            added = jax.lax.stop_gradient((decay * new).sum(0))
            for i, running in enumerate(pair):
                value = (1 - MOMENTUM) ** n * running.value + added[i]
                running.value = value.astype(running.value.dtype)


def products(
    lifted: Lifted, query: Float[Array, "v d"], source: Float[Array, "v d"]
) -> Float[Array, "v d 2"]:
    """The shared and the specific product of each query position, one channel each."""
    scalars = jnp.stack([lifted.a, lifted.b, lifted.c, lifted.d]) / query.shape[1]
    value = lifted.slope * source[:, :, None] + lifted.offset  # [v, d, 2]
    return rectified_product(scalars, query, source, value) + lifted.bias


@jax.custom_vjp
def rectified_product(
    scalars: Float[Array, "4"],
    query: Float[Array, "v d"],
    source: Float[Array, "v d"],
    value: Float[Array, "v d 2"],
) -> Float[Array, "v d 2"]:
    """Σⱼ relu(±F[i, j])·value[j] with F[i, j] = a·qᵢ·sⱼ + b·qᵢ + c·sⱼ + d.

    Training keeps no affinities: the gradient makes them again, and needs six sums over them.
    """
    f = _affinity(scalars, query, source)
    signs = jnp.stack([nn.relu(f), nn.relu(-f)])
    return jnp.einsum("kvij,vjk->vik", signs, value)


def _affinity(scalars: Array, query: Array, source: Array) -> Float[Array, "v d d"]:
    a, b, c, d = scalars
    q, s = query[:, :, None], source[:, None, :]
    return a * q * s + b * q + c * s + d


def _product_backward(kept: tuple, g: Float[Array, "v d 2"]) -> tuple:
    scalars, query, source, value = kept
    a, b, c, _ = scalars
    f = _affinity(scalars, query, source)
    of_value = jnp.einsum("kvij,vik->vjk", jnp.stack([nn.relu(f), nn.relu(-f)]), g)
    shared, specific = (g[:, :, None, k] * value[:, None, :, k] for k in range(2))
    of_f = jnp.where(f > 0, shared, jnp.where(f < 0, -specific, 0))
    over_sources = of_f.sum(2), (of_f * source[:, None, :]).sum(2)
    over_queries = of_f.sum(1), (of_f * query[:, :, None]).sum(1)
    of_query = a * over_sources[1] + b * over_sources[0]
    of_source = a * over_queries[1] + c * over_queries[0]
    of_scalars = (
        (query * over_sources[1]).sum(),
        (query * over_sources[0]).sum(),
        (source * over_queries[0]).sum(),
        over_sources[0].sum(),
    )
    return jnp.stack(of_scalars), of_query, of_source, of_value


rectified_product.defvjp(lambda *given: (rectified_product(*given), given), _product_backward)


class PBMGE(nn.Module):
    """One more part per granularity and stream, appended to the pyramid's parts.

    For each granularity each stream's global part is enhanced by the other stream's parts of that
    granularity, top to bottom; the sources are always the original parts.

    Source: DinoGRL, section PBMGE; the published 256-channel products are elementwise here.
    """

    parts: Sequence[int]

    @nn.compact
    def __call__(
        self, gait: Float[Array, "v p d"], appearance: Float[Array, "v p d"], *, train: bool
    ) -> tuple[Float[Array, "v p2 d"], Float[Array, "v p2 d"]]:
        dtype = accumulation_dtype(gait.dtype)
        streams = jnp.stack([gait, appearance]).astype(dtype)
        enhance = [Enhance(gait.shape[-1], name=f"enhance_{n}") for n in ("gait", "appearance")]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *[e.lifted() for e in enhance])
        scale, shift = (jnp.stack(x) for x in zip(*[e.affine() for e in enhance], strict=True))
        running = tuple(jnp.stack(x) for x in zip(*[e.running() for e in enhance], strict=True))
        first, last = granularity_bounds(self.parts)

        def visit(query: Float[Array, "2 v d"], at: tuple[Array, Array]):
            source, restart = at
            query = jnp.where(restart, streams[:, :, 0], query)
            y = jax.vmap(products)(stacked, query, source)  # [2, v, d, 2]
            mean, var = y.mean((1, 2)), y.var((1, 2))
            m, s = (mean, var) if train else running
            normal = (y - m[:, None, None]) / jnp.sqrt(s + EPSILON)[:, None, None]
            y = normal * scale[:, None, None] + shift[:, None, None]
            query = query + y[..., 0] - y[..., 1]
            return query, (query, mean, var)

        sources = streams[::-1, :, 1:].transpose(2, 0, 1, 3)  # the other stream's parts
        _, (visited, mean, var) = jax.lax.scan(visit, streams[:, :, 0], (sources, first))
        if train and not self.is_initializing():
            for i, e in enumerate(enhance):
                e.update(mean[:, i], var[:, i], gait.shape[0] * gait.shape[-1])
        added = visited[last].transpose(1, 2, 0, 3)
        streams = jnp.concatenate([streams, added], axis=2)
        return streams[0].astype(gait.dtype), streams[1].astype(appearance.dtype)


def granularity_bounds(parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each visited part is its granularity's first, and the index of each last one."""
    counts = np.asarray(parts[1:])
    first = np.zeros(counts.sum(), bool)
    first[np.cumsum(counts) - counts] = True
    return first, np.cumsum(counts) - 1

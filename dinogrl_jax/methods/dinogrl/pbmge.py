"""PBMGE: the two streams enhance each other part by part, coarse to fine."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from dinogrl_jax.ops.layers import accumulation_dtype

EPSILON, MOMENTUM = 1e-5, 0.1  # of every BatchNorm here
# All that training keeps of a visit, beside what it is given: the rest is computed again.
KEPT = jax.checkpoint_policies.save_only_these_names("sums")


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
) -> Float[Array, "2 v d"]:
    """The shared and the specific product of each query position, one channel each.

    F[i, j] = riseᵢ·sⱼ + levelᵢ, and relu(F) is F where that is positive: of the sources there, only
    how many they are and the sums of s and s² matter. The same with −F.
    """
    sign = jnp.asarray([[1], [-1]], query.dtype) / query.shape[1]
    rise = sign * (lifted.a * query + lifted.c)[:, None]  # [v, 2, d]
    level = sign * (lifted.b * query + lifted.d)[:, None]
    positive = rise[..., None] * source[:, None, None] + level[..., None] > 0  # [v, 2, d, d]
    powers = (jnp.ones_like(source), source, jnp.square(source))
    sums = jnp.stack([_selected_sum(positive, x) for x in powers])
    count, first, second = checkpoint_name(sums, "sums")
    slope, offset, bias = (x[:, None] for x in (lifted.slope, lifted.offset, lifted.bias))
    y = slope * (rise * second + level * first) + offset * (rise * first + level * count) + bias
    return y.swapaxes(0, 1)


def _selected_sum(selected: Bool[Array, "v 2 d d"], x: Float[Array, "v d"]) -> Array:
    # In float32 always: the sums are of different signs and sizes.
    return jnp.einsum("vkij,vj->vki", selected.astype(x.dtype), x, precision="highest")


class PBMGE(nn.Module):
    """One more part per granularity and stream, appended to the pyramid's parts.

    For each granularity each stream's global part is enhanced by the other stream's parts of that
    granularity, top to bottom; the sources are always the original parts. The granularities do not
    depend on each other, so that they advance side by side.

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
        lifted = jax.tree.map(lambda *x: jnp.stack(x), *[e.lifted() for e in enhance])
        scale, shift = (jnp.stack(x) for x in zip(*[e.affine() for e in enhance], strict=True))
        running = tuple(jnp.stack(x) for x in zip(*[e.running() for e in enhance], strict=True))
        scalars, unravel = ravel_pytree((lifted, scale, shift))  # one gradient for visits to add to
        blocks, longest = side_by_side(self.parts)

        @partial(jax.checkpoint, prevent_cse=False, policy=KEPT)
        def visit(query: Float[Array, "m 2 v d"], source: Float[Array, "m 2 v d"]):
            lifted, scale, shift = unravel(scalars)
            y = jax.vmap(jax.vmap(products), (None, 0, 0))(lifted, query, source)
            moments = y.mean((3, 4)), y.var((3, 4))  # of [m, 2, 2, v, d]
            mean, var = moments if train else running
            factor = scale / jnp.sqrt(var + EPSILON)
            mean, factor, shift = (x[..., None, None] for x in (mean, factor, shift))
            y = (y - mean) * factor + shift
            return query + y[:, :, 0] - y[:, :, 1], moments

        sources = streams[::-1, :, 1:].transpose(2, 0, 1, 3)  # the other stream's parts
        query = jnp.stack([streams[:, :, 0]] * len(longest))
        visited = []
        for block in blocks:
            m = block.shape[1]
            advanced, moments = jax.lax.scan(visit, query[:m], sources[block])
            query = jnp.concatenate([advanced, query[m:]])
            visited.append([x.reshape(-1, 2, 2) for x in moments])
        if train and not self.is_initializing():
            order = np.argsort(np.concatenate([block.ravel() for block in blocks]))
            mean, var = (jnp.concatenate(x)[order] for x in zip(*visited, strict=True))
            for i, e in enumerate(enhance):
                e.update(mean[:, i], var[:, i], gait.shape[0] * gait.shape[-1])
        added = query[np.argsort(longest)].transpose(1, 2, 0, 3)
        streams = jnp.concatenate([streams, added], axis=2)
        return streams[0].astype(gait.dtype), streams[1].astype(appearance.dtype)


def side_by_side(
    parts: Sequence[int],
) -> tuple[list[Int[np.ndarray, "steps m"]], Int[np.ndarray, " n"]]:
    """Which parts are visited together, in blocks, and the granularities, longest first.

    Part 0 is the first after the global one. A block ends with its shortest granularity: the m of
    the next one are longer.
    """
    counts = np.asarray(parts[1:])
    first = np.cumsum(counts) - counts
    longest = np.argsort(-counts, kind="stable")
    ends = np.unique(counts)
    blocks = [
        np.arange(start, end)[:, None] + first[longest[: np.sum(counts >= end)]]
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    return blocks, longest

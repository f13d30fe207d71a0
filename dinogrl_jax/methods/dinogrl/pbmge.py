"""PBMGE: the two streams enhance each other part by part, coarse to fine."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dinogrl_jax.models.layers import BatchNorm
from dinogrl_jax.ops.precision import accumulation_dtype
from dinogrl_jax.ops.rectified import Lift, rectified_products
from dinogrl_jax.ops.remat import remat

Streams = tuple[Array, Array]  # gait and appearance


class Enhance(nn.Module):
    """query + BN(W₁(relu(F)·g(source))) − BN(W₂(relu(−F)·g(source))), F = θ(query)·φ(source)ᵀ/n.

    A vector is n positions of one channel, which θ, φ and g lift to as many. Both normalisations
    start with scale and shift zero, so that PBMGE starts as the identity.
    """

    @nn.compact
    def __call__(
        self, query: Float[Array, "v d"], source: Float[Array, "v d"], *, train: bool
    ) -> Float[Array, "v d"]:
        n = query.shape[-1]
        lifts = [self._lift(name, 1, n) for name in ("theta", "phi", "g")]
        reductions = [self._lift(name, n, 1) for name in ("shared", "specific")]
        shared, specific = rectified_products(query, source, *lifts, *reductions)
        norm = partial(BatchNorm, 1, scale_init=nn.initializers.zeros)
        shared = norm(name="shared_norm")(shared[..., None], train=train)
        specific = norm(name="specific_norm")(specific[..., None], train=train)
        return query + shared[..., 0] - specific[..., 0]

    def _lift(self, name: str, inputs: int, outputs: int) -> Lift:
        """Weight and bias, drawn as PyTorch draws a convolution's."""
        bound = inputs**-0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        return Lift(
            self.param(f"{name}_weight", uniform, (max(inputs, outputs),)),
            self.param(f"{name}_bias", uniform, (outputs,)),
        )


class Visit(nn.Module):
    """One part of each stream enhances the other stream's vector."""

    @nn.compact
    def __call__(self, vectors: Streams, parts: Streams, train: bool) -> tuple[Streams, None]:
        gait = Enhance(name="gait")(vectors[0], parts[1], train=train)
        appearance = Enhance(name="appearance")(vectors[1], parts[0], train=train)
        return (gait, appearance), None


class PBMGE(nn.Module):
    """One more part per granularity and stream, appended to the pyramid's parts.

    For each granularity each stream's global part is enhanced by the other stream's parts of that
    granularity, top to bottom. The sources are always the original parts, and all visits share
    their parameters and running statistics.

    Source: DinoGRL, section PBMGE.
    """

    parts: Sequence[int]

    @nn.compact
    def __call__(
        self, gait: Float[Array, "v p d"], appearance: Float[Array, "v p d"], *, train: bool
    ) -> tuple[Float[Array, "v p2 d"], Float[Array, "v p2 d"]]:
        streams = [x.astype(accumulation_dtype(x.dtype)) for x in (gait, appearance)]
        whole = tuple(x[:, 0] for x in streams)
        # Whatever `model.remat` says: the sixty visits are small, and soon computed again.
        visit = remat(Visit, "blocks", static_argnums=3, prevent_cse=False)(name="visit")
        if self.is_initializing():
            visit(whole, whole, train)  # what the scan carries has to be there before it
        # In training each visit goes on with the statistics of the one before.
        carried, shared = ("batch_stats", "params") if train else (False, ("params", "batch_stats"))
        visits = nn.scan(
            lambda visit, vectors, sources: visit(vectors, sources, train),
            variable_broadcast=shared,
            variable_carry=carried,
            in_axes=1,
        )
        enhanced, first = [], 1
        for n in self.parts[1:]:
            sources = tuple(x[:, first : first + n] for x in streams)
            enhanced.append(visits(visit, whole, sources)[0])
            first += n
        return tuple(
            jnp.concatenate([x, jnp.stack(added, axis=1)], axis=1).astype(gait.dtype)
            for x, added in zip(streams, zip(*enhanced, strict=True), strict=True)
        )

"""PBMGE's products of a rectified affinity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.remat import MOMENTS, checkpoint_name


class Lift(NamedTuple):
    """A 1×1 convolution from one channel to c, or with one bias from c channels to one."""

    weight: Float[Array, " c"]
    bias: Float[Array, " b"]


@operation
def rectified_products(
    query: Float[Array, "v n"],
    source: Float[Array, "v n"],
    theta: Lift,
    phi: Lift,
    g: Lift,
    shared: Lift,
    specific: Lift,
) -> tuple[Float[Array, "v n"], Float[Array, "v n"]]:
    """relu(F)·g(source) and relu(−F)·g(source), one channel each, F = θ(query)·φ(source)ᵀ/n.

    Source: `enhance` of DinoGRL's published code; `shared` is its W1, `specific` its W2.
    """

    def lifted(x: Array, lift: Lift) -> Float[Array, "v n c"]:
        return x[..., None] * lift.weight + lift.bias

    affinity = lifted(query, theta) @ lifted(source, phi).swapaxes(1, 2) / query.shape[1]
    value = lifted(source, g)
    return (
        jax.nn.relu(affinity) @ value @ shared.weight + shared.bias,
        jax.nn.relu(-affinity) @ value @ specific.weight + specific.bias,
    )


@rectified_products.form()
def rectified_products_without_lifts(
    query: Array, source: Array, theta: Lift, phi: Lift, g: Lift, shared: Lift, specific: Lift
) -> tuple[Array, Array]:
    """No array of c channels: with one channel in, F[i, j] = riseᵢ·sourceⱼ + levelᵢ.

    relu(F) is F where that is positive: of the sources there, only how many they are and the sums
    of source and source² matter. The same with −F.
    """
    rise = (theta.weight @ phi.weight * query + theta.bias @ phi.weight) / query.shape[1]
    level = (theta.weight @ phi.bias * query + theta.bias @ phi.bias) / query.shape[1]
    return (
        _summed(rise, level, source, shared.weight @ g.weight, shared.weight @ g.bias)
        + shared.bias,
        _summed(-rise, -level, source, specific.weight @ g.weight, specific.weight @ g.bias)
        + specific.bias,
    )


def _summed(rise: Array, level: Array, source: Array, slope: Array, offset: Array) -> Array:
    """Σⱼ relu(riseᵢ·sourceⱼ + levelᵢ)·(slope·sourceⱼ + offset)."""
    positive = rise[..., None] * source[:, None] + level[..., None] > 0
    powers = (jnp.ones_like(source), source, jnp.square(source))
    sums = checkpoint_name(jnp.stack([_selected(positive, x) for x in powers]), MOMENTS)
    count, first, second = sums
    return slope * (rise * second + level * first) + offset * (rise * first + level * count)


def _selected(selected: Bool[Array, "v n m"], x: Float[Array, "v m"]) -> Float[Array, "v n"]:
    # In float32 always: the sums are of different signs and sizes.
    return jnp.einsum("vij,vj->vi", selected.astype(x.dtype), x, precision="highest")

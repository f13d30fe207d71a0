"""A function of many rows, of which each device computes its share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dinogrl_jax.devices import sharding


def map_in_shares(call: Callable[[Array], Array], x: Array) -> Array:
    """call(x), where call treats the entries of the leading axis alike and has a result of each.

    It is for what all devices have alike, as parameters are: without it each would compute all.
    Zeros behind x make it divide; each device gathers the results of all.
    """
    mesh = sharding.mesh_in_use()
    if mesh is None or mesh.size == 1:
        return call(x)
    count = len(x)
    filled = jnp.pad(x, [(0, -count % mesh.size)] + [(0, 0)] * (x.ndim - 1))
    constrained, split = jax.lax.with_sharding_constraint, sharding.by_tracklet(mesh)
    y = constrained(call(constrained(filled, split)), split)
    return constrained(y, sharding.replicated(mesh))[:count]

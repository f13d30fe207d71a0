"""A function of many rows, computed for a few rows at a time, or by each device for its share."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dinogrl_jax.devices import sharding
from dinogrl_jax.ops.forms import operation


@operation
def map_in_chunks(call: Callable[[PyTree], PyTree], x: PyTree, at_once: int) -> PyTree:
    """call(x), where call treats the entries of the leading axis alike, of all arrays in x."""
    del at_once
    return call(x)


@map_in_chunks.form("cpu")
def in_turns(call: Callable[[PyTree], PyTree], x: PyTree, at_once: int) -> PyTree:
    """By `at_once` entries of each device, or the next fewer that divide theirs.

    What is between stays in the processor's cache. The entries are in the order of the devices.
    """
    length = len(jax.tree.leaves(x)[0])
    devices = math.gcd(length, jax.device_count())
    own = length // devices
    few = largest_divisor(own, at_once)

    def dealt(x: Array) -> Array:  # [turn, devices · few, ...]: entries stay where they are
        x = x.reshape(devices, own // few, few, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(own // few, devices * few, *x.shape[3:])

    def gathered(y: Array) -> Array:
        y = y.reshape(own // few, devices, few, *y.shape[2:]).swapaxes(0, 1)
        return y.reshape(length, *y.shape[3:])

    return jax.tree.map(gathered, jax.lax.map(call, jax.tree.map(dealt, x)))


def largest_divisor(count: int, most: int) -> int:
    """The largest number that divides count, of those up to `most` (at least 1)."""
    return next(n for n in range(max(min(most, count), 1), 0, -1) if count % n == 0)


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

"""The device mesh, and where batches and the state live on it.

Every device works on its share of each batch. `fsdp` devices share one copy of what is trained
(fully sharded data parallel); with 1, each device has a copy of its own.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError

AXES = ("data", "fsdp")
LEAST = 2**12  # numbers in an array; below, a copy on every device costs less than gathering it


def device_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices, all of all processes by default, `fsdp` of which share one copy of the state.

    Raises InputError for another number of devices, and as `check_devices`.
    """
    check_devices()
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or count % fsdp:
        raise InputError(f"mesh.fsdp = {fsdp}: it has to divide the number of devices, {count}")
    shape, kinds = (count // fsdp, fsdp), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices)


def check_devices() -> None:
    """Raise InputError where JAX finds none, as with a misspelt or missing platform."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # one of CUDA has no text
        reason = str(error).partition("\n")[0][:200] or "no platform can be used"
        asked = os.environ.get("JAX_PLATFORMS")
        cure = f"JAX_PLATFORMS is {asked!r}, correct or unset it" if asked else "install jax anew"
        raise InputError(f"JAX finds no devices ({reason}): {cure}") from error


def device_names(mesh: Mesh) -> str:
    """How many devices there are, and of which kind: "8 × NVIDIA H100 (gpu)"."""
    device = mesh.devices.flat[0]
    kind = f"{device.device_kind} ({device.platform})"
    return f"{mesh.size} × {device.platform if device.platform == device.device_kind else kind}"


def platform(mesh: Mesh) -> str:
    """What the mesh's devices are: "cpu", "gpu", "tpu"."""
    return mesh.devices.flat[0].platform


_in_use: contextvars.ContextVar = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def using(mesh: Mesh) -> Iterator[None]:
    """What is traced inside runs on the mesh, as `mesh_in_use` says."""
    before = _in_use.set(mesh)
    try:
        yield
    finally:
        _in_use.reset(before)


def mesh_in_use() -> Mesh | None:
    """The mesh that what is traced runs on; None where nobody said."""
    return _in_use.get()


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_tracklet(mesh: Mesh) -> NamedSharding:
    """The first axis, pairs of tracklets or tracklets, split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def of_state(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf (arrays or their shapes): its longest axis that divides."""
    return jax.tree.map(lambda leaf: shared(leaf.shape, mesh), tree)


def shared(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """One array over the axis `fsdp`; small ones, and those that do not divide, are copied."""
    count = mesh.shape["fsdp"]
    fitting = [axis for axis, size in enumerate(shape) if size % count == 0]
    if count == 1 or not fitting or math.prod(shape) < LEAST:
        return replicated(mesh)
    longest = max(fitting, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "fsdp"))


def spread(state: Any, mesh: Mesh) -> Any:
    """A state that every process has whole, as global arrays where `of_state` puts them."""
    return jax.jit(lambda state: state, out_shardings=of_state(state, mesh))(state)


def shapes(tree: Any, mesh: Mesh) -> Any:
    """The shapes of a tree's leaves, with the sharding that the state has on the mesh."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shared(x.shape, mesh)), tree
    )


def check_batch(config: ConfigDict, mesh: Mesh) -> None:
    """Raise InputError unless a batch can be divided among the devices, and into micro-batches."""
    identities, tracklets = config.data.identities_per_batch, config.data.tracklets_per_identity
    if identities * tracklets % mesh.size:
        raise InputError(
            f"data.identities_per_batch × data.tracklets_per_identity = {identities * tracklets} "
            f"pairs cannot be divided among {mesh.size} devices"
        )
    count = config.optimizer.micro_batches
    if count < 1 or tracklets % count:
        raise InputError(
            f"optimizer.micro_batches = {count}: it has to divide data.tracklets_per_identity, "
            f"{tracklets}"
        )


def placed(batch: Any, mesh: Mesh) -> Any:
    """Each process's share of a batch as one global array per leaf."""
    sharding = by_tracklet(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )

"""The device mesh, and where batches and the state live on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def device_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_tracklet(mesh: Mesh) -> NamedSharding:
    """The first axis, pairs of tracklets or tracklets, split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def placed(batch, mesh: Mesh):
    """Each process's part of a batch as one global array per leaf."""
    sharding = by_tracklet(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )

"""Several processes, on one or many hosts, that train one model together."""

import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError


def connect(config: ConfigDict) -> None:
    """Join the other processes, if there are any; before JAX is used otherwise. One prints.

    config: the section `hosts` of `dinogrl_jax.config`.
    """
    if config.coordinator == "auto":
        if in_cluster(os.environ):
            jax.distributed.initialize()
    elif config.coordinator:
        if not 0 <= config.index < config.count:
            raise InputError(f"hosts.index = {config.index}: it has to be in 0…{config.count - 1}")
        jax.distributed.initialize(config.coordinator, config.count, config.index)
    if not first():
        sys.stdout = open(os.devnull, "w")


def in_cluster(environment: dict) -> bool:
    """Whether SLURM, Open MPI or a TPU pod started more processes than this one."""
    counts = [environment.get(name) for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")]
    several = any(count not in (None, "", "1") for count in counts)
    return several or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def gathered(array: Any) -> np.ndarray:
    """An array that is split over processes by its first axis, whole, on every process."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def together(name: str) -> None:
    """Return once every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Agreement:
    """Whether a flag is set on any process: the same answer everywhere.

    Of several processes each hears at a call what was said at the one before, so that none waits
    for a step that it has only just begun.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.any = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))
        self.asked: jax.Array | None = None

    def __call__(self, flag: bool) -> bool:
        if jax.process_count() == 1:
            return flag
        flags = np.full(jax.local_device_count(), flag)
        before, self.asked = self.asked, self.any(sharding.placed(flags, self.mesh))
        return before is not None and bool(before)

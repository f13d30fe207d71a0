"""Several processes, on one or many hosts, that train one model together."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError

# What a launcher tells each of several processes, beside their number.
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
WAIT, SAID_EVERY = 300, 10  # seconds for the other processes, and between two lines about that


def connect(config: ConfigDict) -> None:
    """Join the other processes, if there are any; before JAX is used otherwise. One prints.

    Says on stderr for whom it waits, and for how long.

    config: the section `hosts` of `dinogrl_jax.config`.

    Raises InputError for processes that do not meet, and where JAX finds no devices.
    """
    if config.coordinator == "auto":
        together = started_together(os.environ)
        if together > 1:
            _join(f"the other {together - 1} of {together} processes or more")
    elif config.coordinator:
        address = _checked_address(config)
        if config.index:
            _await_coordinator(address, f"{config.index} of {config.count}")
        _join(
            f"the other {config.count - 1} of {config.count} processes at {config.coordinator}",
            coordinator_address=config.coordinator,
            num_processes=config.count,
            process_id=config.index,
        )
    sharding.check_devices()
    if not first():
        sys.stdout = open(os.devnull, "w")


def started_together(environment: Mapping[str, str]) -> int:
    """How many processes SLURM, Open MPI or a TPU pod started for this run; 1 is this one alone.

    Says so on stderr where a job of SLURM has more tasks, and this process is none of them.

    Raises InputError where Open MPI does not say where its processes meet.
    """
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        if tasks := _count(environment, name):
            break
    absent = [name for name in SLURM if name not in environment]
    if tasks > 1 and not absent:
        return tasks
    if tasks > 1:
        print(
            f"SLURM's job has {tasks} tasks, and srun did not start this process ({absent[0]} is "
            "not set): it runs alone. `srun python …` starts all; hosts.coordinator= says alone",
            file=sys.stderr,
        )
    processes = _count(environment, "OMPI_COMM_WORLD_SIZE")
    if processes > 1 and any(name not in environment for name in OPEN_MPI):
        raise InputError(
            f"Open MPI started {processes} processes (OMPI_COMM_WORLD_SIZE) and does not say where "
            "they meet: set --config.hosts.coordinator=HOST:PORT, count and index, or "
            "--config.hosts.coordinator= to run alone"
        )
    pod = environment.get("TPU_WORKER_HOSTNAMES", "").count(",") + 1
    return max(processes, pod, 1)


def number_among(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which of how many processes this is, from 0 on, where they do not join; as above."""
    together = started_together(environment)
    names = "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID"
    given = [_count(environment, name) for name in names if environment.get(name, "").isdecimal()]
    number = given[0] if given and together > 1 else 0
    return (number, together) if number < together else (0, 1)


def _count(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0


def _checked_address(config: ConfigDict) -> tuple[str, int]:
    """Host and port of the coordinator; InputError for a wrong address, index or a taken port."""
    if not 0 <= config.index < config.count:
        raise InputError(f"hosts.index = {config.index}: it has to be in 0…{config.count - 1}")
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f"hosts.coordinator = {config.coordinator!r}: it has to be host:port, of the process "
            "with index 0, with a port up to 65535"
        )
    if config.index == 0:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("", int(port)))
            except OSError as error:
                raise InputError(
                    f"hosts.coordinator = {config.coordinator}: this process cannot listen there "
                    f"({error.strerror}): choose another port, the same for all processes"
                ) from error
    return host, int(port)


def _await_coordinator(address: tuple[str, int], which: str) -> None:
    """Return once the process with index 0 listens; InputError after WAIT seconds."""
    with _said(f"process {which} waits for the one with index 0 at {address[0]}:{address[1]}"):
        reason, end = "", time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                socket.create_connection(address, timeout=5).close()
                return
            except OSError as error:
                reason = error.strerror or str(error)
                time.sleep(0.5)
    raise InputError(
        f"nobody listened at hosts.coordinator = {address[0]}:{address[1]} for {WAIT} s "
        f"({reason}): start the process with index 0 there, or correct the address"
    )


def _join(others: str, **how: Any) -> None:
    try:
        with _said(f"waiting for {others}"):
            jax.distributed.initialize(initialization_timeout=WAIT, **how)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise InputError(
            f"{others} were waited for in vain ({reason}): start all of them within {WAIT} s, or "
            "set --config.hosts.coordinator= to run alone"
        ) from error


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """While the block lasts, say on stderr every SAID_EVERY seconds what it does."""
    done, began = threading.Event(), time.monotonic()

    def say() -> None:
        while not done.wait(SAID_EVERY):
            seconds = time.monotonic() - began
            print(f"{what}: {seconds:.0f} of at most {WAIT} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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

"""Any number of devices and processes trains as one device does; what they tell each other."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
import scale
import small
from collectives import carried, sizes
from commands import ROOT
from ml_collections import ConfigDict

from dinogrl_jax.devices import hosts, sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training.state import state_shapes


def started(devices: int, *arguments) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ['XLA_FLAGS']}"
    command = [sys.executable, str(ROOT / "tests/scale.py"), *map(str, arguments)]
    path = os.pathsep.join(str(ROOT / name) for name in ("", "tests", "benchmarks"))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(process: subprocess.Popen) -> list[dict]:
    """What it printed for each mesh; Gloo prints too."""
    output, errors = process.communicate(timeout=1800)  # Gloo has been seen to wait for ever
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


MESHES = ["1:1", "2:2", "4:2", "8:1"]  # devices, and how many of them share a copy of the state


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[list[list[dict]], Path]:
    """What both print, and the folder where they save halfway."""
    folder = tmp_path_factory.mktemp("halfway")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    # One device each, as CPU hosts have: with two, Gloo mixed up collectives in one run of two.
    pair = [started(1, f"2:2={folder}", address, 2, index) for index in range(2)]
    with ThreadPoolExecutor(2) as both:  # a full pipe of one would stop the other
        return list(both.map(finished, pair)), folder


@pytest.fixture(scope="module")
def on_meshes(two_processes) -> dict[str, dict]:
    """What each mesh gives; "continued": one device goes on where two processes have saved."""
    folder = two_processes[1]
    found = finished(started(8, ",".join([*MESHES, f"1:1={folder}"])))
    return dict(zip([*MESHES, "continued"], found, strict=True))


def assert_equal(found: dict, expected: dict) -> None:
    # Sums are made in another order, and what that changes grows with every step of Adam; another
    # batch, statistic or triplet shows at 1e-2.
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-8)
    embedding = np.array(expected["embedding"])
    error = np.abs(np.array(found["embedding"]) - embedding).max()
    assert error < 1e-6 * embedding.std()


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_devices_train_as_one(on_meshes, mesh):
    found, one = on_meshes[mesh], on_meshes["1:1"]
    assert_equal(found, one)
    assert found["largest"] <= one["largest"] / int(mesh[-1])  # Adam's moments are shared


def test_two_processes_train_as_one(on_meshes, two_processes):
    (first,), second = two_processes[0]
    one = on_meshes["1:1"]
    assert_equal(first, one)
    assert second == []  # one process prints
    assert one["heard"] == [15] and first["heard"] == [16]  # the other one said it at 15


def test_one_process_continues_what_two_have_saved(on_meshes):
    found, one = on_meshes["continued"], on_meshes["1:1"]
    assert len(found["losses"]) == 10
    assert_equal(found, one | {"losses": one["losses"][10:]})


@pytest.mark.parametrize("mesh", ["8:1", "4:2"])
def test_no_device_sends_activations_of_frames(on_meshes, mesh):
    devices, fsdp = map(int, mesh.split(":"))
    config = scale.settings()
    config.model.compute_dtype = "float32"  # has the same shapes, and needs no setting
    state = state_shapes(small.METHOD, small.model(config), config)
    # 16 tracklets, a share on each device; their parts and channels; 5 identities.
    of_tracklets = {16, 16 // devices, 8, 8 // devices, small.IDENTITIES, 2}
    known = sizes(state.trained, axes=of_tracklets | small.sizes().AXES)
    sent = on_meshes[mesh]["sent"]
    carries = {(kind, carried(tuple(shape), known)) for kind, shapes in sent for shape in shapes}
    expected = {
        ("all-reduce", "parameters"),
        ("all-reduce", "statistics"),
        ("all-reduce", "embeddings"),
        ("all-gather", "embeddings"),
    }
    assert expected <= carries
    assert (("all-gather", "parameters") in carries) == (fsdp > 1)
    assert {kind for kind, _ in carries} == {"all-reduce", "all-gather"}
    assert "other" not in {what for _, what in carries}
    assert on_meshes["1:1"]["sent"] == []


def test_a_mesh_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="mesh.fsdp = "):
        sharding.device_mesh(3 * jax.device_count())
    with pytest.raises(InputError, match="mesh.fsdp = 0"):
        sharding.device_mesh(0)


SLURM = dict.fromkeys(hosts.SLURM, "1")


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        ({"SLURM_NTASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, 1),
        ({"SLURM_NTASKS": "16", **SLURM}, 16),
        ({"SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "1", **SLURM}, 1),  # srun -n 1 in a job
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, 2),
        ({"OMPI_COMM_WORLD_SIZE": "3", **dict.fromkeys(hosts.OPEN_MPI, "1")}, 3),
    ],
)
def test_a_cluster_is_seen_in_its_environment(environment, count, capsys):
    assert hosts.started_together(environment) == count
    assert not capsys.readouterr().err


@pytest.mark.parametrize("absent", hosts.SLURM)
def test_a_process_that_srun_did_not_start_runs_alone_and_says_so(absent, capsys):
    environment = {"SLURM_NTASKS": "4", **SLURM}
    del environment[absent]
    assert hosts.started_together(environment) == 1
    error = capsys.readouterr().err
    assert absent in error and "4 tasks" in error and error.count("\n") == 1


def test_processes_of_open_mpi_that_do_not_know_each_other_are_refused():
    with pytest.raises(InputError, match="hosts.coordinator=HOST:PORT"):
        hosts.started_together({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"})


@pytest.mark.parametrize("coordinator", ["localhost", ":80", "host:", "host:x", "host:70000"])
def test_an_address_without_host_or_port_is_refused(coordinator):
    config = ConfigDict({"coordinator": coordinator, "count": 2, "index": 0})
    with pytest.raises(InputError, match="it has to be host:port"):
        hosts.connect(config)


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="choose another port"):
            hosts.connect(ConfigDict({"coordinator": address, "count": 2, "index": 0}))


def test_a_coordinator_that_nobody_started_is_waited_for_in_lines(monkeypatch, capsys):
    monkeypatch.setattr(hosts, "WAIT", 1)
    monkeypatch.setattr(hosts, "SAID_EVERY", 0.1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with pytest.raises(InputError, match="nobody listened at"):
        hosts.connect(ConfigDict({"coordinator": address, "count": 2, "index": 1}))
    assert f"process 1 of 2 waits for the one with index 0 at {address}" in capsys.readouterr().err

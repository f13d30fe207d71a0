"""Any number of devices and processes trains X-ReID as one does: losses, and memories behind passes
and steps.
"""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xreid_scale
from commands import ROOT

DEVICES = (1, 2, 4, 8)


def started(devices: int, *arguments) -> subprocess.Popen:
    command = [sys.executable, xreid_scale.__file__, *map(str, arguments)]
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ['XLA_FLAGS']}"
    path = os.pathsep.join(str(ROOT / name) for name in ("", "tests"))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(process: subprocess.Popen) -> list[dict]:
    """What it printed for each mesh; Gloo prints too."""
    output, errors = process.communicate(timeout=1800)  # Gloo has been seen to wait for ever
    assert process.returncode == 0, errors[-3000:]
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def on_meshes() -> dict[int, dict]:
    found = finished(started(max(DEVICES), ",".join(map(str, DEVICES))))
    return dict(zip(DEVICES, found, strict=True))


@pytest.mark.parametrize("devices", DEVICES[1:])
def test_devices_train_as_one(on_meshes, devices):
    assert_same_training(on_meshes[devices], on_meshes[1])


def test_two_processes_train_as_one(on_meshes):
    """Of the last batch of a pass, the first one has all tracklets, the second what fills it up."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    pair = [started(1, 2, address, 2, index) for index in range(2)]
    with ThreadPoolExecutor(2) as both:  # a full pipe of one would stop the other
        (found,), silent = both.map(finished, pair)
    assert silent == []  # one process prints
    assert_same_training(found, on_meshes[1])


def assert_same_training(found: dict, one: dict) -> None:
    """Sums are in another order. Adam makes steps of that where a gradient is zero, as of a shift
    in front of BatchNorm, which a pass by running statistics sees.
    """
    assert len(one["losses"]) == xreid_scale.STEPS * len(xreid_scale.EPOCHS)
    for step, expected in zip(found["losses"], one["losses"], strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(step[name], value, rtol=1e-8, atol=1e-12, err_msg=name)
    for memories, expected in zip(found["memories"], one["memories"], strict=True):
        np.testing.assert_allclose(memories, expected, rtol=0, atol=1e-8)

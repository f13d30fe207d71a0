"""Any number of devices trains X-ReID as one does: losses, and memories behind passes and steps."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import xreid_scale
from commands import ROOT

DEVICES = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def on_meshes() -> dict[int, dict]:
    command = [sys.executable, xreid_scale.__file__, ",".join(map(str, DEVICES))]
    flags = f"--xla_force_host_platform_device_count={max(DEVICES)} {os.environ['XLA_FLAGS']}"
    path = os.pathsep.join(str(ROOT / name) for name in ("", "tests"))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(DEVICES, lines, strict=True))


@pytest.mark.parametrize("devices", DEVICES[1:])
def test_devices_train_as_one(on_meshes, devices):
    """Sums are in another order. Adam makes steps of that where a gradient is zero, as of a shift
    in front of BatchNorm, which a pass by running statistics sees.
    """
    found, one = on_meshes[devices], on_meshes[1]
    assert len(one["losses"]) == xreid_scale.STEPS * len(xreid_scale.EPOCHS)
    for step, expected in zip(found["losses"], one["losses"], strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(step[name], value, rtol=1e-8, atol=1e-12, err_msg=name)
    for memories, expected in zip(found["memories"], one["memories"], strict=True):
        np.testing.assert_allclose(memories, expected, rtol=0, atol=1e-8)

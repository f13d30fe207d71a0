"""Any number of devices trains VLD as one does, and each reads a share of the sentences."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import vld_scale
from commands import ROOT

DEVICES = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def on_meshes() -> dict[int, dict]:
    command = [sys.executable, vld_scale.__file__, ",".join(map(str, DEVICES))]
    flags = f"--xla_force_host_platform_device_count={max(DEVICES)} {os.environ['XLA_FLAGS']}"
    path = os.pathsep.join(str(ROOT / name) for name in ("", "tests"))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(DEVICES, lines, strict=True))


@pytest.mark.parametrize("devices", DEVICES[1:])
def test_devices_train_as_one(on_meshes, devices):
    found, one = on_meshes[devices]["losses"], on_meshes[1]["losses"]
    assert len(one) == vld_scale.STEPS
    for step, expected in zip(found, one, strict=True):
        for name, value in expected.items():  # sums in another order, which Adam enlarges
            np.testing.assert_allclose(step[name], value, rtol=1e-8, err_msg=name)


@pytest.mark.parametrize("devices", DEVICES)
def test_sentences_are_divided_among_devices(on_meshes, devices):
    assert on_meshes[devices]["shares"] == [-(-vld_scale.IDENTITIES // devices)]

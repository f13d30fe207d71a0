"""What is computed for a few rows at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.ops.chunks import in_turns, largest_divisor


@pytest.mark.parametrize("at_once, devices, turns", [(3, 1, 4), (5, 1, 3), (99, 1, 1), (2, 4, 3)])
def test_the_same_comes_out(at_once, devices, turns, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x, calls = jnp.arange(24.0).reshape(12, 2), []

    def call(given):
        calls.append(len(given[0]))
        return {"sum": given[0] + given[1][:, None], "own": given[1]}

    made = in_turns(call, (x, x[:, 0]), at_once)
    np.testing.assert_array_equal(made["sum"], x + x[:, :1])
    np.testing.assert_array_equal(made["own"], x[:, 0])
    assert set(calls) == {12 // turns}


def test_each_device_keeps_its_own(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    first = in_turns(lambda x: jnp.broadcast_to(x[:1], x.shape), jnp.arange(12), at_once=1)
    # A turn has one entry of each device, whose entries are three in a row: 0, 3, 6, 9 at first.
    np.testing.assert_array_equal(first, [0, 1, 2] * 4)


@pytest.mark.parametrize("count, most, expected", [(12, 5, 4), (12, 99, 12), (7, 3, 1), (6, 0, 1)])
def test_the_largest_divisor(count, most, expected):
    assert largest_divisor(count, most) == expected

"""`import dinogrl_jax`: three names, and nothing that takes long."""

import subprocess
import sys

import pytest

import dinogrl_jax


def test_the_names():
    assert dir(dinogrl_jax) == ["Gallery", "evaluate", "load"]
    assert all(getattr(dinogrl_jax, name).__doc__ for name in dir(dinogrl_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dinogrl_jax.nothing


def test_importing_imports_no_jax():
    code = "import dinogrl_jax, sys; sys.exit(bool({'jax', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

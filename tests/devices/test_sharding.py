"""Kind H: where JAX finds no devices, and what a mesh is called."""

import jax
import pytest

from dinogrl_jax.devices import compiling, sharding
from dinogrl_jax.interface.errors import InputError


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'cuda': no\nand more"), AssertionError()]
)
def test_a_platform_that_is_not_there_is_one_line(error, monkeypatch):
    def nothing():
        raise error

    monkeypatch.setattr(jax, "devices", nothing)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(InputError, match="JAX_PLATFORMS is 'cuda'") as caught:
        sharding.device_mesh()
    assert "\n" not in str(caught.value)


def test_a_mesh_is_called_by_number_and_platform():
    assert sharding.device_names(sharding.device_mesh()) == f"{jax.device_count()} × cpu"


@pytest.mark.parametrize("home", ["", "/proc/nowhere"])
def test_a_home_that_is_missing_or_read_only_keeps_nothing(home, monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def folder():
        if not home:
            raise RuntimeError("Could not determine home directory.")
        return compiling.Path(home)

    monkeypatch.setattr(compiling, "cache_folder", folder)
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda *pair: asked.append(pair))
    compiling.keep_compiled()
    assert "jax_compilation_cache_dir" not in dict(asked)

"""What is compiled is kept, and serves the next run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from dinogrl_jax.devices import compiling, sharding
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.training.state import state_shapes
from dinogrl_jax.training.step import make_step


@pytest.fixture
def cache_setting():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_sums_are_right():
    """On a CPU, YNNPACK of jaxlib 0.10.2 would make the last of these sums 0.8 % too small."""
    x = jnp.zeros((32769, 3)).at[:, 0].set(jnp.arange(32769.0))

    def square(row):
        same = jnp.matmul(jnp.eye(3), row, precision="highest")  # as exact on a GPU
        return jnp.square(same).sum()

    options = compiling.compiler_options()
    found = jax.jit(jax.vmap(square), compiler_options=options)(x)
    np.testing.assert_allclose(found, np.arange(32769.0) ** 2, rtol=1e-6)  # float32


def test_seeds_share_one_program():
    def program(seed: int) -> str:
        config = small.get_config()
        config.seed = seed
        model, mesh = small.model(config), sharding.device_mesh()
        state = state_shapes(small.METHOD, model, config)
        frames = jax.ShapeDtypeStruct((2, 2, 2, 64, 32, 3), np.float32)
        cameras = jax.ShapeDtypeStruct((2, 2), np.int32)
        labels = jax.ShapeDtypeStruct((2,), np.int32)
        step = make_step(small.METHOD, model, config, mesh)
        return step.lower(state, Clips(frames, cameras), labels).as_text()

    assert program(0) == program(1)


def test_kept_below_the_user_s_cache_folder(monkeypatch, tmp_path, cache_setting):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compiling.keep_compiled()
    assert jax.config.jax_compilation_cache_dir.startswith(f"{tmp_path}/dinogrl_jax/compiled-")


def test_the_user_s_own_setting_stays(monkeypatch, tmp_path, cache_setting):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compiling.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_an_option_of_another_version_is_left_out():
    assert compiling.understood("xla_dump_to")  # which all versions have
    assert not compiling.understood("xla_cpu_an_option_that_never_was")
    assert compiling.understood("xla_backend_optimization_level", 1)
    assert not compiling.understood("xla_backend_optimization_level", "much")

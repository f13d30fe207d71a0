"""How computations are compiled: the backend's options, and where the results are kept."""

import contextlib
import functools
import hashlib
import os
import platform
from pathlib import Path

import jax

YNNPACK = "xla_cpu_experimental_ynn_fusion_type"  # what XLA leaves to that library on a CPU


def compiler_options(
    platform: str = "",
    once: bool = False,
    dtype: str = "float32",
) -> dict[str, bool | int | str]:
    """Options of the compiler for a platform ("cpu", "tpu", …), if empty the default backend's.

    once: the program runs a single time, so that compiling fast is worth more than fast code.
    dtype: of the products.
    """
    platform = platform or jax.default_backend()
    if platform == "gpu":
        # With products of its own, XLA leaves biases, residuals and ReLU to kernels behind them;
        # cuBLAS's take them along. A product merged with another has to be cut apart again.
        return {"xla_gpu_enable_triton_gemm": False, "xla_gpu_dot_merger_threshold_mb": 0}
    if platform != "cpu":
        return {}
    if once:
        return {"xla_backend_optimization_level": 1}
    # YNNPACK's matrix products and softmax are slower than XLA's here, but those of float64, which
    # are several times as fast; its float32 sums are wrong in some programs (jaxlib 0.10.2).
    ynnpack = {YNNPACK: ""} if dtype != "float64" and understood(YNNPACK) else {}
    return ynnpack | {
        # XLA's own loops take 256 by default; processors that lack 512 are not changed by it.
        "xla_cpu_prefer_vector_width": 512,
        # The default CPU scheduler keeps twice the temporaries alive.
        "xla_cpu_enable_concurrency_optimized_scheduler": False,
        # Without its barriers, recomputation is moved to the front and saves no memory.
        "xla_disable_hlo_passes": "cse_barrier_expander",
    }


@functools.cache
def understood(option: str, value: bool | int | str = "") -> bool:
    """Whether this version's compiler has an option, which other versions may not have.

    value: one that the option takes; only text can be empty.
    """
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def keep_compiled() -> None:
    """Keep what is compiled on disk, so that the next process with the same settings starts soon.

    In ~/.cache/dinogrl_jax, or where JAX_COMPILATION_CACHE_DIR says; an empty one keeps nothing. To
    be called after `hosts.connect`.
    """
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # Only the first process writes and finds; beside one that has just compiled the same step,
        # its loaded one waits for ever in a collective.
        jax.config.update("jax_enable_compilation_cache", False)
        return
    # What takes a tenth of a second counts too: there are fifty of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(RuntimeError, OSError):  # no home, or none to write to: keep nothing
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def cache_folder() -> Path:
    """One folder for each kind of processor: code for one may crash another.

    Raises RuntimeError for a user without a home.
    """
    features = ""  # of the processor; only Linux lists them
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()
    return home / "dinogrl_jax" / f"compiled-{kind[:8]}"

"""What an H200 would run in a training step and an extraction, compiled without one.

    python3 -m venv gpu && gpu/bin/pip install -e ".[cuda]"
    gpu/bin/python benchmarks/gpu_program.py --out found.json --config configs/vcm.py \
        --config.model.compute_dtype=bfloat16 --config.model.remat=nothing

XLA's compiler for NVIDIA GPUs gets a description of the card, and runs on any CPU. Nothing is
executed, and no kernel is tuned: where XLA would time several, it takes the first. For the step
and the extraction of one batch, three minutes of a processor for both, it prints

    kernels      that the GPU starts; those in loops as often as they run
    GB           that these read and write: each array of a kernel once. Of an array that it only
                 slices, gathers from or updates in place that part, of scratch space nothing
    TFLOP        of matrix products, attention and convolutions
    temporaries, arguments      GB of memory, as XLA lays them out

and the same of each kind of kernel. Figures can be compared where the version of jax is the same.
PYTHONPATH=/another/tree measures that tree.
"""

import importlib.util
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # what compiles; the card's own backend would look for one

import jax
import jax.numpy as jnp
from absl import app, flags
from hlo import kernels
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict, config_flags

CONFIG = config_flags.DEFINE_config_file("config")
OUT = flags.DEFINE_string("out", "", "JSON file to write")
TEXT = flags.DEFINE_string("text", "", "folder for the compiler's text")
FLASH = flags.DEFINE_bool("flash", True, "cuDNN's attention in bfloat16, as on a card")
IDENTITIES = 500  # of HITSZ-VCM's training set

# These figures of the card are XLA's, xla/backends/gpu/target_config/specs/h200.txtpb.
CARD = """
gpu_device_info {
  name: "NVIDIA H200 141GB HBM3e" device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 threads_per_warp: 32
  threads_per_core_limit: 2048 threads_per_block_limit: 1024
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448 l2_cache_size: 52428800
  device_memory_size: 151397597184 memory_bandwidth: 4800000000000 pcie_bandwidth: 34359738368
  device_address_bits: 64 ecc_enabled: true dnn_version: "9.10.0"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
}
platform_name: "CUDA" device_description_str: "NVIDIA H200 141GB HBM3e"
dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }
"""


def programs(config: ConfigDict, mesh: Mesh) -> dict[str, tuple]:
    """(jitted function, its arguments' shapes) of the step and of the extraction."""
    if importlib.util.find_spec("dinogrl_jax.lowering"):  # a tree from before methods had folders
        return programs_before(config, mesh)
    from lowering import embed_shapes, step_shapes

    from dinogrl_jax import methods
    from dinogrl_jax.methods.contract import Facts
    from dinogrl_jax.ops.attention import attention
    from dinogrl_jax.retrieval.embedding import make_embed
    from dinogrl_jax.training.step import make_step

    for number, form in enumerate(attention.forms):
        if form.platforms == ("gpu",):  # which asks for a card
            attention.forms[number] = form._replace(when=flash)
    method = methods.named(config.method)
    model = method.Model(config, Facts(IDENTITIES))
    return {
        "step": (make_step(method, model, config, mesh), step_shapes(method, model, config)),
        "extract": (make_embed(method, model, config, mesh), embed_shapes(model, config)),
    }


def programs_before(config: ConfigDict, mesh: Mesh) -> dict[str, tuple]:
    """The same of commit 8a1c79a."""
    from dinogrl_jax import evaluate, lowering, train
    from dinogrl_jax.methods import METHODS
    from dinogrl_jax.models import dinov2

    dinov2.has_flash_attention = lambda dtype: flash(jax.ShapeDtypeStruct((), dtype))
    model = METHODS[config.method].Model(config.model, IDENTITIES)
    shapes = (*lowering.embed_arguments(model, config), "visible")
    return {
        "step": (train.make_step(model, config, mesh), lowering.step_arguments(model, config)),
        "extract": (evaluate.make_embed(model, config, mesh), shapes),
    }


def flash(q: Any, *_) -> bool:
    """Whether attention is cuDNN's."""
    return FLASH.value and q.dtype == jnp.bfloat16


def figures(name: str, function: Callable, arguments: tuple) -> dict:
    """What is known of a program."""
    began = time.monotonic()
    compiled = function.lower(*arguments).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if TEXT.value:
        Path(TEXT.value).mkdir(parents=True, exist_ok=True)
        Path(TEXT.value, f"{name}.txt").write_text(text)
    kinds = defaultdict(lambda: [0, 0, 0.0])  # kernels, bytes, operations
    for kernel in kernels(text):
        for position, size in enumerate((1, kernel.bytes, kernel.flops)):
            kinds[kernel.kind][position] += size * kernel.times
    number, bytes_, flops = map(sum, zip(*kinds.values(), strict=True))
    return {
        "kernels": number,
        "bytes": bytes_,
        "flops": flops,
        "temporaries": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1][1])),
        "seconds": round(time.monotonic() - began),
    }


def print_figures(name: str, found: dict) -> None:
    print(
        f"{name}: {found['kernels']:,} kernels, {found['bytes'] / 1e9:.1f} GB, "
        f"{found['flops'] / 1e12:.2f} TFLOP, temporaries {found['temporaries'] / 1e9:.2f} GB, "
        f"arguments {found['arguments'] / 1e9:.2f} GB; compiled in {found['seconds']} s"
    )
    for what, (number, bytes_, flops) in found["kinds"].items():
        print(f"  {what}: {number:,}, {bytes_ / 1e9:.2f} GB, {flops / 1e12:.2f} TFLOP", flush=True)


def main(_: Any) -> None:
    config = CONFIG.value
    d = config.data
    config.evaluation.tracklets_per_batch = 2 * d.identities_per_batch * d.tracklets_per_identity
    card = topologies.get_topology_desc(platform="cuda", topology="1x1x1", target_config=CARD)
    kinds = (AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("data", "fsdp"), axis_types=kinds, devices=card.devices)
    found = {"jax": jax.__version__}
    for name, (function, arguments) in programs(config, mesh).items():
        found[name] = figures(name, function, arguments)
        print_figures(name, found[name])
        if OUT.value:
            Path(OUT.value).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)

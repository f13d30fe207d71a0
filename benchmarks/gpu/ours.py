"""This package's programs, for `gpu.turns`: python -m gpu.ours '[{"name": …}]'."""

import importlib.metadata
import runpy
import time

import arithmetic
import forms
import jax
import jax.numpy as jnp
from benchmark_machine import Machine, device_peak, host_peak
from ml_collections import ConfigDict

from dinogrl_jax.devices import memory, sharding
from dinogrl_jax.devices.compiling import understood
from gpu.worker import Run, serve

VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy")


def made(program: dict) -> tuple[Run, dict]:
    return machine(program) if program["what"] == "limits" else compiled(program)


def machine(program: dict) -> tuple[Run, dict]:
    """The rate of products of a type, in turns with the programs, and that of copying."""
    measured = Machine(jnp.dtype(program["dtype"]), runs=3, seconds=0.0)
    known = {
        "device": jax.devices()[0].device_kind,
        "rates": measured.by_size,
        "copied": measured.copied,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }
    return lambda _: {"rate": float(measured.probe()[0])}, known


def compiled(program: dict) -> tuple[Run, dict]:
    """A step or an extraction with settings and with options of the compiler."""
    unknown = [name for name, value in program["options"].items() if not understood(name, value)]
    if unknown:
        raise ValueError(f"this version of XLA has no {', '.join(unknown)}")
    config = sized(runpy.run_path(program["config"])["get_config"](), program["frames"])
    for name, value in program["settings"].items():
        config.update_from_flattened_dict({name: value})
    made_of = forms.PROGRAMS[program["what"]]
    found = made_of(config, sharding.device_mesh(), {}, program["options"])
    memory.give_back()
    for _ in range(2):
        jax.block_until_ready(found.call())
    work = arithmetic.METHODS[config.method](config, forms.FACTS.identities).values()
    d = config.data
    training, tracklets = program["what"] == "step", program["frames"] // d.frames
    known = {
        "operations": tracklets * sum(w.training if training else w.forward for w in work),
        "compilation": found.compilation,
        "temporaries": found.temporaries,
        "held": found.held,
    }

    def run(calls: int) -> dict:
        jax.block_until_ready(found.call())
        began = time.perf_counter()
        for _ in range(calls):
            result = found.call()
        jax.block_until_ready(result)
        seconds = (time.perf_counter() - began) / calls
        return {"seconds": seconds, "device_peak": device_peak(), "host_peak": host_peak()}

    return run, known


def sized(config: ConfigDict, frames: int) -> ConfigDict:
    """The configuration with a batch of so many frames, four identities where that is possible."""
    d = config.data
    pairs = frames // d.frames // 2
    d.identities_per_batch = next(n for n in (4, 2, 1) if pairs % n == 0)
    d.tracklets_per_identity = pairs // d.identities_per_batch
    return config


if __name__ == "__main__":
    memory.keep_freed()
    serve(made)

"""What each fast form of an operation earns on this machine (dinogrl_jax/ops/forms.py):

    python benchmarks/forms.py --config configs/vcm.py --tracklets 4 --out found.json

Compiles the training step and the extraction of a batch with all fast forms, with none ("plain"),
and for each operation with all but its own; runs them in turns, and prints how much longer a run
takes without a form, by the medians of --rounds. A form stays from 3 % of a step or an extraction
on. Memory is what the compiler sets aside for temporaries.

An accelerator is given --calls in a row, as a training gives them; their mean counts.
"""

import importlib
import pkgutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

import dinogrl_jax.ops
from dinogrl_jax import methods
from dinogrl_jax.devices import memory, sharding
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.ops.forms import OPERATIONS
from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step

FACTS = Facts(identities=500)
WHAT = flags.DEFINE_list("what", ["step", "extract"], "of step and extract")
TRACKLETS = flags.DEFINE_integer("tracklets", 4, "in a batch, half of each modality")
CALLS = flags.DEFINE_integer("calls", 0, "in a row; 0: 1 on a CPU, else 8")
ROUNDS = flags.DEFINE_integer("rounds", 3, "runs of each program, in turns, after one to warm up")
ONLY = flags.DEFINE_list("only", [], "operations; all that have a form here without it")
OUT = flags.DEFINE_string("out", "", "JSON file to write, after each round")


Options = dict[str, bool | int | str] | None  # of the compiler


class Program(NamedTuple):
    call: Callable[[], Any]
    temporaries: int  # bytes
    compilation: float  # seconds
    held: int  # bytes of arguments and results, which last longer than a call


def operations_with_forms(platform: str) -> list[str]:
    """The names of the operations that have a form for a platform."""
    for module in pkgutil.iter_modules(dinogrl_jax.ops.__path__):
        importlib.import_module(f"dinogrl_jax.ops.{module.name}")
    return [
        name
        for name, found in OPERATIONS.items()
        if any(platform in form.platforms for form in found.forms)
    ]


def random_clips(config: ConfigDict, pairs: int, modalities: Sequence[str]) -> Clips:
    d = config.data
    shape = (pairs, len(modalities), d.frames, d.height, d.width, 3)
    frames = np.random.default_rng(0).standard_normal(shape, np.float32)
    return Clips(frames, np.full(shape[:2], -1, np.int32), tuple(modalities))


def step_program(
    config: ConfigDict, mesh: jax.sharding.Mesh, kept: dict, options: Options = None
) -> Program:
    """A training step; all programs continue the one state in `kept`.

    options: of the compiler, beside the package's own.
    """
    method = methods.named(config.method)
    model, d = method.Model(config, FACTS), config.data
    if "state" not in kept:
        variables = initial_variables(model, config)
        kept["state"] = sharding.spread(initial_state(variables, method, config), mesh)
    pairs = d.identities_per_batch * d.tracklets_per_identity
    clips = random_clips(config, pairs, ("visible", "infrared"))
    labels = np.repeat(np.arange(d.identities_per_batch, dtype=np.int32), d.tracklets_per_identity)
    batch = sharding.placed((clips, labels), mesh)
    began = time.perf_counter()
    lowered = make_step(method, model, config, mesh).lower(kept["state"], *batch)
    compiled = lowered.compile(compiler_options=options)

    def call() -> Any:
        kept["state"], terms = compiled(kept["state"], *batch)
        return terms

    return program(call, compiled, began)


def extract_program(
    config: ConfigDict, mesh: jax.sharding.Mesh, kept: dict, options: Options = None
) -> Program:
    """The descriptors of a batch of visible tracklets."""
    method = methods.named(config.method)
    model, d = method.Model(config, FACTS), config.data
    if "variables" not in kept:
        kept["variables"] = jax.device_put(
            initial_variables(model, config), sharding.replicated(mesh)
        )
    count = 2 * d.identities_per_batch * d.tracklets_per_identity
    clips = sharding.placed(random_clips(config, count, ("visible",)), mesh)
    began = time.perf_counter()
    lowered = make_embed(method, model, config, mesh).lower(kept["variables"], clips)
    compiled = lowered.compile(compiler_options=options)
    return program(lambda: compiled(kept["variables"], clips), compiled, began)


def program(call: Callable[[], Any], compiled: jax.stages.Compiled, began: float) -> Program:
    seconds, sizes = time.perf_counter() - began, compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return Program(call, sizes.temp_size_in_bytes, seconds, held)


PROGRAMS = {"step": step_program, "extract": extract_program}


def measured(what: str, config: ConfigDict, mesh: jax.sharding.Mesh, names: list[str]) -> dict:
    """Seconds of each round, temporaries and compilation, by what is left out."""
    kept: dict = {}
    known, programs, seconds = operations_with_forms(sharding.platform(mesh)), {}, {}
    without = {f"without {n}": ",".join(x for x in known if x != n) for n in names}
    for title, forms in {"fast": "fast", "plain": "plain", **without}.items():
        config = config.copy_and_resolve_references()
        config.ops.forms = forms
        programs[title] = PROGRAMS[what](config, mesh, kept)
        memory.give_back()
        jax.block_until_ready(programs[title].call())
        seconds[title] = []
    calls = CALLS.value or (1 if sharding.platform(mesh) == "cpu" else 8)
    for _ in range(ROUNDS.value):
        for title, one in programs.items():
            began = time.perf_counter()
            for _ in range(calls):
                made = one.call()
            jax.block_until_ready(made)
            seconds[title].append((time.perf_counter() - began) / calls)
    return {
        title: {
            "seconds": times,
            "temporaries": programs[title].temporaries,
            "compilation": programs[title].compilation,
        }
        for title, times in seconds.items()
    }


def table(what: str, found: dict) -> list[str]:
    """A line for each program: its median, what it takes more than all fast forms, memory."""
    fast = statistics.median(found["fast"]["seconds"])
    lines = [
        f"| {what} | s, least…most | more than fast | temporaries | compiled |",
        "|---|---|---|---|---|",
    ]
    for title, row in found.items():
        times, median = row["seconds"], statistics.median(row["seconds"])
        lines.append(
            f"| {title} | {median:.3g}, {min(times):.3g}…{max(times):.3g} "
            f"| {100 * (median / fast - 1):+.1f} % | {row['temporaries'] / 2**30:.2f} GiB "
            f"| {row['compilation']:.0f} s |"
        )
    return lines


def main() -> None:
    config = command_line.config_from_flags()
    memory.keep_freed()
    jax.config.update("jax_enable_compilation_cache", False)
    pairs = TRACKLETS.value // 2
    identities = 2 if pairs % 2 == 0 else 1
    config.data.identities_per_batch = identities
    config.data.tracklets_per_identity = pairs // identities
    mesh = sharding.device_mesh()
    names = ONLY.value or operations_with_forms(sharding.platform(mesh))
    device = mesh.devices.flat[0]
    print(
        f"{mesh.size} × {device.device_kind}, {2 * pairs} tracklets, {config.model.compute_dtype}"
    )
    results = {"device": device.device_kind, "tracklets": 2 * pairs}
    for what in WHAT.value:
        results[what] = measured(what, config, mesh, names)
        print("\n".join(table(what, results[what])), flush=True)
        if OUT.value:
            write_json(Path(OUT.value), results)


if __name__ == "__main__":
    flags.FLAGS.set_default("config", str(Path(__file__).parents[1] / "configs" / "vcm.py"))
    run(main)

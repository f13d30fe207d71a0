"""How close to the machine's limit the package runs:

    python benchmarks/benchmark.py --what step,extract --out found.json
    python benchmarks/benchmark.py --config tests/small.py --what step --trace /tmp/trace
    python benchmarks/benchmark.py --compare found.json

The limit is the rate of the machine's matrix products in the model's `compute_dtype`, measured in
turns with what is compared with it, so that other load hits both. A share is the arithmetic of the
published implementation per second (`arithmetic.py`) over that rate; medians count. On a CPU,
`processor` is the same per second that the process computed, whatever else was running. A method
whose arithmetic nobody has counted has no shares.

    step        the jitted training step: share, compile time without and with a cache, memory
    extract     descriptors of a batch of one modality: the same
    evaluate    metrics of --queries × --gallery descriptors, both directions
    pipeline    training batches from generated JPEG files, in frames per second
    checkpoint  seconds that saving holds up the step, and their share at the default interval
    compile     seconds to trace and to compile, without a cache and with one, for the
                configuration's own batch: a step, and the descriptors of a batch

--compare exits with status 1 where a share is less than (1 − margin) times the file's.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import arithmetic
import benchmark_data
import benchmark_metrics
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from benchmark_machine import Machine, device_peak, host_peak, reset_peak, spread
from benchmark_table import compared, difference, print_machine, print_result
from flax import linen as nn
from lowering import embed_shapes, step_shapes
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.devices import memory, sharding
from dinogrl_jax.devices.compiling import keep_compiled
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.retrieval.gallery import descriptor_set
from dinogrl_jax.retrieval.metrics import both_directions
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.state import State, initial_state
from dinogrl_jax.training.step import make_step

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("step", "extract", "evaluate", "pipeline", "checkpoint", "compile")
FACTS = Facts(500, tuple(range(1, 13)))  # of HITSZ-VCM's training set

WHAT = flags.DEFINE_list("what", list(PARTS), f"what is measured, of {', '.join(PARTS)}")
TRACKLETS = flags.DEFINE_integer(
    "tracklets", 0, "in a batch, half of each modality; 0: 8 on a CPU, else the configuration's"
)
RUNS = flags.DEFINE_integer("runs", 3, "least runs of each measurement after warm-up")
SECONDS = flags.DEFINE_float("seconds", 5.0, "least seconds of each measurement")
QUERIES = flags.DEFINE_integer("queries", 1000, "of evaluate")
GALLERY = flags.DEFINE_integer("gallery", 2000, "of evaluate")
FOLDER = flags.DEFINE_string("folder", "", "where files are made, and kept; else a temporary one")
OUT = flags.DEFINE_string("out", "", "JSON file to write")
COMPARE = flags.DEFINE_string("compare", "", "JSON file of before, to compare shares with")
MARGIN = flags.DEFINE_float("margin", 0.1, "part of a share that may be lost in --compare")
TRACE = flags.DEFINE_string("trace", "", "folder for a profile that TensorBoard and Perfetto open")


class Setup(NamedTuple):
    """What is measured, and where."""

    config: ConfigDict
    asked: ConfigDict  # with its own batch
    method: ModuleType
    model: nn.Module
    mesh: jax.sharding.Mesh
    machine: Machine
    folder: Path

    @property
    def pairs(self) -> int:
        return self.config.data.identities_per_batch * self.config.data.tracklets_per_identity

    @property
    def frames(self) -> int:
        return 2 * self.pairs * self.config.data.frames

    def operations(self, training: bool) -> int | None:
        """How many a batch takes as published; None where nobody has counted them."""
        if self.config.method not in arithmetic.METHODS:
            return None
        counted = arithmetic.METHODS[self.config.method](self.config, FACTS.identities)
        work = counted.values()
        return 2 * self.pairs * sum(w.training if training else w.forward for w in work)


def main() -> int:
    flags.FLAGS.set_default("config", str(ROOT / "configs/vcm.py"))
    config = command_line.config_from_flags()
    if unknown := set(WHAT.value) - set(PARTS):
        raise InputError(f"command line: --what has {min(unknown)!r}, not of {', '.join(PARTS)}")
    before = read_json(Path(COMPARE.value)) if COMPARE.value else None
    if COMPARE.value and not (isinstance(before, dict) and {"setup", "results"} <= set(before)):
        raise InputError(f"{COMPARE.value} was not written by --out: it lacks setup or results")
    if OUT.value and not Path(OUT.value).parent.is_dir():
        raise InputError(f"--out {OUT.value}: there is no folder {Path(OUT.value).parent}; make it")
    asked = config.copy_and_resolve_references()
    memory.keep_freed()
    sized(config)
    mesh = sharding.device_mesh(config.mesh.fsdp)
    sharding.check_batch(config, mesh)
    method = methods.named(config.method)
    model = method.Model(config, FACTS)
    found = {"setup": described(config), "results": {}}
    if before and (why := difference(before, found)):
        raise InputError(f"{COMPARE.value}: {why}")
    with folder() as made:
        keep_compiled()
        jax.config.update("jax_compilation_cache_dir", str(made / "compiled"))
        machine = Machine(jnp.dtype(config.model.compute_dtype), RUNS.value, SECONDS.value)
        setup = Setup(config, asked, method, model, mesh, machine, made)
        found = {"machine": machine.described(), **found}
        print_machine(found["machine"])
        for name in (name for name in PARTS if name in WHAT.value):
            found["results"][name] = MEASURED[name](setup, found["results"])
            print_result(name, found["results"][name])
            if OUT.value:  # after each, so that a long run that is stopped has said something
                write_json(Path(OUT.value), found)
    return compared(before, found, MARGIN.value) if before else 0


def sized(config: ConfigDict) -> None:
    """The batch of --tracklets: as square as the number of pairs allows."""
    d = config.data
    pairs = TRACKLETS.value // 2
    if not pairs:
        if jax.default_backend() != "cpu":
            return
        pairs = min(4, d.identities_per_batch * d.tracklets_per_identity)
    per_identity = next(n for n in range(int(pairs**0.5), 0, -1) if pairs % n == 0)
    d.identities_per_batch, d.tracklets_per_identity = pairs // per_identity, per_identity


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """--folder, or one that is removed."""
    if FOLDER.value:
        Path(FOLDER.value).mkdir(parents=True, exist_ok=True)
        yield Path(FOLDER.value)
    else:
        with tempfile.TemporaryDirectory(prefix="dinogrl_benchmark_") as made:
            yield Path(made)


def described(config: ConfigDict) -> dict:
    """What two results must have in common to be compared."""
    config = config.to_dict()
    pairs = config["data"]["identities_per_batch"] * config["data"]["tracklets_per_identity"]
    return {
        "method": config["method"],
        "data": {name: config["data"][name] for name in ("height", "width", "frames")},
        "model": json.loads(json.dumps(config["model"])),
        "tracklets": 2 * pairs,
        "identities": FACTS.identities,
        "metrics": [QUERIES.value, GALLERY.value],
    }


def clips_of(setup: Setup, count: int, modalities: tuple[str, ...]) -> Clips:
    """`count` clips of noise of each modality, on the devices."""
    d, rng = setup.config.data, np.random.default_rng(0)
    shape = (count, len(modalities), d.frames, d.height, d.width, 3)
    frames = rng.standard_normal(shape, np.float32)
    cameras = rng.choice(FACTS.cameras, shape[:2]).astype(np.int32)
    return sharding.placed(Clips(frames, cameras, modalities), setup.mesh)


def step(setup: Setup, _: dict) -> dict:
    method, model, config, mesh = setup.method, setup.model, setup.config, setup.mesh
    d = config.data
    labels = np.repeat(np.arange(d.identities_per_batch, dtype=np.int32), d.tracklets_per_identity)
    batch = clips_of(setup, setup.pairs, MODALITIES), sharding.placed(labels, mesh)
    kept = [fresh_state(setup)]
    compiled, costs = compilation(lambda: make_step(method, model, config, mesh), *kept, *batch)

    def one() -> Any:
        kept[0], terms = compiled(kept[0], *batch)
        return terms

    return measured(setup, "step", one, setup.operations(training=True)) | costs


def fresh_state(setup: Setup) -> State:
    variables = initial_variables(setup.model, setup.config)
    return sharding.spread(initial_state(variables, setup.method, setup.config), setup.mesh)


def extract(setup: Setup, _: dict) -> dict:
    method, model, config, mesh = setup.method, setup.model, setup.config, setup.mesh
    variables = jax.device_put(initial_variables(model, config), sharding.replicated(mesh))
    clips = clips_of(setup, 2 * setup.pairs, MODALITIES[:1])
    compiled, costs = compilation(lambda: make_embed(method, model, config, mesh), variables, clips)
    operations = setup.operations(training=False)
    return measured(setup, "extract", lambda: compiled(variables, clips), operations) | costs


def measured(setup: Setup, name: str, call: Callable[[], Any], operations: int | None) -> dict:
    """A call whose first run warms up, its memory, and its profile where --trace asks for it."""
    memory.give_back()
    reset_peak()
    jax.block_until_ready(call())
    timed = setup.machine.timed(call)
    found = timed.described(operations)
    found |= {"frames": setup.frames, "frames_per_second": setup.frames / timed.seconds.median}
    found["memory"] = {"host_peak": host_peak(), "device_peak": device_peak()}
    if TRACE.value:
        with jax.profiler.trace(f"{TRACE.value}/{name}", create_perfetto_trace=True):
            jax.block_until_ready(call())
    return found


def compilation(made: Callable[[], Callable], *arguments: Any) -> tuple[Callable, dict]:
    """The compiled function, and what compiling it takes: seconds, and bytes when it runs."""
    seconds = {}
    for name in ("without_cache", "with_cache"):
        compiled = lowered = None  # a run has one of them as well
        jax.clear_caches()
        began = time.perf_counter()
        lowered = made().lower(*arguments)
        seconds["tracing"] = time.perf_counter() - began
        began = time.perf_counter()
        compiled = lowered.compile()
        seconds[name] = time.perf_counter() - began
    analysis = compiled.memory_analysis()
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
    }
    return compiled, {"compilation": seconds, "compiled_bytes": sizes}


def evaluate(setup: Setup, _: dict) -> dict:
    """Metrics of random descriptors, both directions, on what benchmark_metrics.py makes."""
    kinds = {}
    for seed, (name, count) in enumerate((("q", QUERIES.value), ("g", GALLERY.value))):
        ids = benchmark_metrics.ids(count, GALLERY.value, seed)
        empty = np.empty((count, benchmark_metrics.PARTS, benchmark_metrics.WIDTH), np.float32)
        kinds[name] = descriptor_set(benchmark_metrics.descriptors(ids[0], empty, seed), *ids)

    def call() -> Any:
        return both_directions(kinds["q"], kinds["g"])

    call()
    size = benchmark_metrics.PARTS * benchmark_metrics.WIDTH
    operations = 2 * 2 * QUERIES.value * GALLERY.value * size  # each direction by itself
    return setup.machine.timed(call).described(operations)


def pipeline(setup: Setup, _: dict) -> dict:
    """Frames per second of training batches, as benchmark_data.py measures them."""
    config = benchmark_data.files(setup.folder / "files", 288, 144)
    batches = benchmark_data.ours(config, setup.folder / "files" / "raw")
    found = [benchmark_data.rates(batches, 12, config.data.workers) for _ in range(RUNS.value)]
    by_clock, by_core = (spread(list(values)) for values in zip(*found, strict=True))
    return {
        "workers": config.data.workers,
        "frames_per_second": by_clock._asdict(),
        "frames_per_second_of_a_core": by_core._asdict(),
    }


def saving(setup: Setup, results: dict) -> dict:
    """Seconds that a checkpoint holds up the step, and until it is on the disk."""
    state, blocked, written = fresh_state(setup), [], []
    identities = list(range(FACTS.identities))
    with tempfile.TemporaryDirectory(dir=setup.folder) as made:
        manager = checkpoint.open_folder(made)
        for number in range(1 + RUNS.value):
            said = checkpoint.Metadata(setup.config, identities, list(FACTS.cameras), number)
            began = time.perf_counter()
            checkpoint.save(manager, state.variables, said, state.training)
            blocked.append(time.perf_counter() - began)
            checkpoint.finish(manager)
            written.append(time.perf_counter() - began)
        manager.close()
    found = {"blocked": spread(blocked[1:])._asdict(), "written": spread(written[1:])._asdict()}
    t = setup.config.train
    found["steps_between"] = t.checkpoint_every * t.steps_per_epoch
    if "step" in results:
        between = found["steps_between"] * results["step"]["seconds"]["median"]
        found["part_of_step_time"] = found["blocked"]["median"] / between
    return found


def cold_start(setup: Setup, _: dict) -> dict:
    """Seconds of tracing and compiling before the first step and the first descriptors."""
    method, config, mesh = setup.method, setup.asked, setup.mesh
    model = method.Model(config, FACTS)
    shapes = step_shapes(method, model, config)
    step = compilation(lambda: make_step(method, model, config, mesh), *shapes)
    shapes = embed_shapes(model, config)
    embed = compilation(lambda: make_embed(method, model, config, mesh), *shapes)
    return {"step": step[1]["compilation"], "extract": embed[1]["compilation"]}


MEASURED = dict(zip(PARTS, (step, extract, evaluate, pipeline, saving, cold_start), strict=True))


if __name__ == "__main__":
    run(main)

"""How close to the machine's limit the package runs:

    python scripts/benchmark.py --what step,extract --out found.json
    python scripts/benchmark.py --config tests/small.py --what step --trace /tmp/trace
    python scripts/benchmark.py --compare docs/benchmark_cpu.json

The limit is the rate of the machine's matrix products in the model's `compute_dtype`, measured in
turns with what is compared with it, so that other load hits both. A share is the arithmetic of the
published implementation (dinogrl_jax/arithmetic.py) per second, over that rate; medians count. On a
CPU, `processor` is the same per second that the process computed, whatever else was running.

    step        the jitted training step: share, compile time without and with a cache, memory
    extract     descriptors of a batch of one modality: the same
    stages      the step's stages alone, forward and with gradients, beside their floor
    evaluate    metrics of --queries × --gallery descriptors, both directions
    pipeline    training batches from generated JPEG files, in frames per second
    checkpoint  seconds that saving holds up the step, and their share at the default interval

--compare exits with status 1 where a share is less than (1 − margin) times the file's.
"""

import contextlib
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import benchmark_data
import benchmark_metrics
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax import arithmetic, checkpoint, command_line, sharding
from dinogrl_jax.arithmetic import Work
from dinogrl_jax.compiling import compiler_options
from dinogrl_jax.errors import InputError, run
from dinogrl_jax.evaluate import make_embed
from dinogrl_jax.gallery import tracklets
from dinogrl_jax.methods import METHODS
from dinogrl_jax.methods.dinogrl import AppearanceStream
from dinogrl_jax.metrics import both_ways
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.models.pbmge import PBMGE
from dinogrl_jax.models.sasgl import Branches, GaitNetwork
from dinogrl_jax.train import State, initial_state, initial_variables, make_step

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("step", "extract", "stages", "evaluate", "pipeline", "checkpoint")
IDENTITIES = 500  # of HITSZ-VCM's training set
GIB, GIGA = 2**30, 1e9

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


class Spread(NamedTuple):
    """Of several runs."""

    median: float
    least: float
    most: float
    runs: int


class Timed(NamedTuple):
    """Seconds of a call, and the machine's rate in between, operations a second.

    The same per second that all threads of the process computed, which other programs change less.
    """

    seconds: Spread
    rate: float
    computed: Spread
    computed_rate: float

    def described(self, operations: float) -> dict:
        found = {
            "seconds": self.seconds._asdict(),
            "matmul_rate": self.rate,
            "operations": operations,
            "share": operations / self.seconds.median / self.rate,
        }
        if jax.default_backend() == "cpu":
            computed = operations / self.computed.median / self.computed_rate
            found |= {"processor_seconds": self.computed._asdict(), "processor_share": computed}
        return found


class Machine:
    """The rate of matrix products of a type, best of several sizes, and of copying."""

    def __init__(self, dtype: jnp.dtype) -> None:
        cpu = jax.default_backend() == "cpu"
        sizes = (512, 1024, 2048) if cpu else (4096, 8192, 16384)
        self.by_size = {}
        for n in sizes:
            calls = self._calls(n, dtype)
            calls()
            self.by_size[n] = spread([calls()[0] for _ in range(RUNS.value)]).median
        best = max(self.by_size, key=self.by_size.get)
        self.probe = self._calls(best, dtype)
        self.copied = self._copied(2**28 if cpu else 2**32)

    @staticmethod
    def _calls(n: int, dtype: jnp.dtype) -> Callable[[], np.ndarray]:
        """Operations a second, by both clocks, of enough products of that size to be timed.

        As many go before, uncounted: right after a large program they are slower by up to a third.
        """
        a, b = jax.random.normal(jax.random.key(0), (2, n, n)).astype(dtype)
        count = max(round(4e10 / n**3), 1)
        product = jax.jit(jnp.matmul).lower(a, b).compile()  # kept where caches are cleared

        def rates() -> np.ndarray:
            for _ in range(2):
                began = clocks()
                for _ in range(count):
                    made = product(a, b)
                jax.block_until_ready(made)
            return count * 2 * n**3 / (clocks() - began)

        return rates

    @staticmethod
    def _copied(size: int) -> float:
        """Bytes read and written a second."""
        x = jnp.zeros(size // 4, jnp.float32)
        copy = jax.jit(lambda x: x + 1, donate_argnums=0)
        seconds = []
        for _ in range(6):
            began = time.perf_counter()
            x = jax.block_until_ready(copy(x))
            seconds.append(time.perf_counter() - began)
        return 2 * size / spread(seconds[1:]).median

    def timed(self, call: Callable[[], Any]) -> Timed:
        """A call that has been made before, in turns with the matrix products."""
        took, rates, end = [], [self.probe()], time.perf_counter() + SECONDS.value
        while len(took) < RUNS.value or time.perf_counter() < end:
            began = clocks()
            jax.block_until_ready(call())
            took.append(clocks() - began)
            rates.append(self.probe())
        seconds, computed = (spread(list(x)) for x in np.transpose(took))
        rate, computed_rate = np.median(rates, axis=0).tolist()
        return Timed(seconds, rate, computed, computed_rate)

    def described(self) -> dict:
        return {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "system": platform.platform(),
            "versions": checkpoint.versions(),
            "matmul_rates": {str(n): rate for n, rate in self.by_size.items()},
            "matmul_rate": max(self.by_size.values()),
            "copied": self.copied,
        }


def spread(values: list[float]) -> Spread:
    return Spread(*(float(f(values)) for f in (np.median, np.min, np.max)), len(values))


def clocks() -> np.ndarray:
    """Seconds of the clock, and seconds that all threads of the process have computed."""
    return np.array([time.perf_counter(), time.process_time()])


class Setup(NamedTuple):
    """What is measured, and where."""

    config: ConfigDict
    model: nn.Module
    mesh: jax.sharding.Mesh
    machine: Machine
    work: dict[str, Work]  # for one tracklet
    folder: Path

    @property
    def pairs(self) -> int:
        return self.config.data.identities_per_batch * self.config.data.tracklets_per_identity

    @property
    def frames(self) -> int:
        return 2 * self.pairs * self.config.data.frames


def main() -> int:
    flags.FLAGS.set_default("config", str(ROOT / "configs/vcm.py"))
    config = command_line.parsed_config()
    if unknown := set(WHAT.value) - set(PARTS):
        raise InputError(f"command line: --what has {min(unknown)!r}, not of {', '.join(PARTS)}")
    before = json.loads(Path(COMPARE.value).read_text()) if COMPARE.value else None
    sized(config)
    mesh = sharding.device_mesh(config.mesh.fsdp)
    sharding.check_batch(config, mesh)
    model = METHODS[config.method].Model(config.model, IDENTITIES)
    same = described(config)
    if before:
        check_comparable(before, same)
    with folder() as made:
        jax.config.update("jax_compilation_cache_dir", str(made / "compiled"))
        machine = Machine(jnp.dtype(config.model.compute_dtype))
        work = arithmetic.published(config, IDENTITIES)
        setup = Setup(config, model, mesh, machine, work, made)
        found = {"machine": machine.described(), "setup": same, "results": {}}
        print_machine(found["machine"])
        for name in (name for name in PARTS if name in WHAT.value):
            found["results"][name] = MEASURED[name](setup, found["results"])
            print_result(name, found["results"][name])
            if OUT.value:  # after each, so that a long run that is stopped has said something
                Path(OUT.value).write_text(json.dumps(found, indent=2) + "\n")
    return compared(before, found) if before else 0


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
        "identities": IDENTITIES,
        "metrics": [QUERIES.value, GALLERY.value],
    }


def frames_of(setup: Setup, tracklets: int, modalities: int) -> np.ndarray:
    d = setup.config.data
    shape = (tracklets, modalities, d.frames, d.height, d.width, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def step(setup: Setup, _: dict) -> dict:
    config, mesh = setup.config, setup.mesh
    state = fresh_state(setup)
    d = config.data
    labels = np.repeat(np.arange(d.identities_per_batch, dtype=np.int32), d.tracklets_per_identity)
    batch = sharding.placed((frames_of(setup, setup.pairs, 2), labels), mesh)
    compiled, costs = compilation(lambda: make_step(setup.model, config, mesh), state, *batch)
    kept = [state]

    def one() -> Any:
        kept[0], terms = compiled(kept[0], *batch)
        return terms

    operations = arithmetic.total(setup.work).training * 2 * setup.pairs
    return measured(setup, "step", one, operations) | costs


def fresh_state(setup: Setup) -> State:
    variables = initial_variables(setup.model, setup.config)
    return sharding.spread(initial_state(variables, setup.config), setup.mesh)


def extract(setup: Setup, _: dict) -> dict:
    variables = jax.device_put(
        initial_variables(setup.model, setup.config), sharding.replicated(setup.mesh)
    )
    frames = sharding.placed(frames_of(setup, 2 * setup.pairs, 1), setup.mesh)
    compiled, costs = compilation(
        lambda: make_embed(setup.model, setup.config, setup.mesh), variables, frames, "visible"
    )
    operations = arithmetic.total(setup.work).forward * 2 * setup.pairs
    return measured(setup, "extract", lambda: compiled(variables, frames), operations) | costs


def measured(setup: Setup, name: str, call: Callable[[], Any], operations: float) -> dict:
    """A call whose first run warms up, its memory, and its profile where --trace asks for it."""
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


def stages(setup: Setup, results: dict) -> dict:
    """Every stage of the model alone, on what it is given in a training step."""
    c, dtype = setup.config.model, jnp.dtype(setup.config.model.compute_dtype)
    variables = initial_variables(setup.model, setup.config)
    frames = jnp.asarray(frames_of(setup, setup.pairs, 2))
    found = {}

    def alone(name: str, module: nn.Module, counted: tuple[str, ...], *inputs, **more) -> None:
        own = {kind: tree[name] for kind, tree in variables.items() if name in tree}
        work = arithmetic.total({k: setup.work[k] for k in counted}).times(2 * setup.pairs)
        found[name] = stage(setup, name, module, own, work, inputs, more)

    if "gait" in c.streams:
        backbone, flat = DINOv2(c.dinov2, dtype), frames.reshape(-1, *frames.shape[3:])
        alone("dinov2", backbone, ("dinov2",), flat)
        tokens = jax.jit(backbone.apply)({"params": variables["params"]["dinov2"]}, flat)
        alone("branches", Branches(c.sasgl, dtype), ("branches",), tokens, train=True)
        shape = (2, *tokens.last.shape[:1], *(2 * n for n in tokens.last.shape[1:3]))
        maps = jax.random.uniform(jax.random.key(0), (*shape, c.sasgl.map_channels))
        gait = GaitNetwork(c.resnet.stages, c.resnet.width, c.sasgl.pre_channels, dtype)
        alone("gait", gait, ("pre_blocks", "gait_resnet"), *maps, train=True)
    if "appearance" in c.streams:
        stream, modalities = AppearanceStream(c, dtype), METHODS[setup.config.method].MODALITIES
        given = {"modalities": modalities, "train": True}
        alone("appearance", stream, ("stems", "appearance_resnet"), frames, **given)
    if c.pbmge:
        shape = (2, 2 * setup.pairs, sum(c.parts), c.embedding)
        parts = jax.random.normal(jax.random.key(0), shape)
        alone("pbmge", PBMGE(c.parts), ("pbmge",), *parts, train=True)
    if "step" in results:
        known = (s.get("training", s["forward"])["seconds"]["median"] for s in found.values())
        found["rest_of_step"] = results["step"]["seconds"]["median"] - sum(known)
    return found


# Stages whose input is made by trained ones: a step needs the gradient of it as well.
INSIDE = ("gait", "pbmge")


def stage(setup: Setup, name: str, module: nn.Module, own: dict, work: Work, inputs, more) -> dict:
    """A module forward, and with the gradients of its parameters where it has any trained."""
    training = {"mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(0)}}

    def forward(own: dict, *inputs: Any) -> Any:
        return module.apply(own, *inputs, **more, **(training if more else {}))

    def loss(params: dict, *inputs: Any) -> jax.Array:
        made = jax.tree.leaves(forward({**own, "params": params}, *inputs))
        return sum(jnp.square(x.astype(jnp.float32)).mean() for x in made)

    def rate(function: Callable, operations: float, *arguments: Any) -> dict:
        jitted = jax.jit(function, compiler_options=compiler_options(training=True))
        compiled = jitted.lower(*arguments).compile()
        jax.block_until_ready(compiled(*arguments))
        return setup.machine.timed(lambda: compiled(*arguments)).described(operations)

    found = {"forward": rate(forward, work.forward, own, *inputs)}
    if work.backward:
        wanted = tuple(range(1 + len(inputs))) if name in INSIDE else 0
        gradient = jax.grad(loss, wanted)
        found["training"] = rate(gradient, work.training, own["params"], *inputs)
    return found


def evaluate(setup: Setup, _: dict) -> dict:
    """Metrics of random descriptors, both directions, on what benchmark_metrics.py makes."""
    kinds = {}
    for seed, (name, count) in enumerate((("q", QUERIES.value), ("g", GALLERY.value))):
        ids = benchmark_metrics.ids(count, GALLERY.value, seed)
        empty = np.empty((count, benchmark_metrics.PARTS, benchmark_metrics.WIDTH), np.float32)
        kinds[name] = tracklets(benchmark_metrics.descriptors(ids[0], empty, seed), *ids)

    def call() -> Any:
        return both_ways(kinds["q"], kinds["g"])

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
    with tempfile.TemporaryDirectory(dir=setup.folder) as made:
        manager = checkpoint.open_folder(made)
        for number in range(1 + RUNS.value):
            said = checkpoint.Metadata(setup.config, list(range(IDENTITIES)), number, None, None)
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


MEASURED = dict(zip(PARTS, (step, extract, stages, evaluate, pipeline, saving), strict=True))


def reset_peak() -> None:
    """Begin the host's peak anew, where Linux lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def host_peak() -> int:
    """Most bytes of memory that the process had at once since `reset_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_peak() -> int | None:
    """Most bytes of a device's memory since the start; None where the backend does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def print_machine(machine: dict) -> None:
    rates = ", ".join(f"{n}: {r / GIGA:.0f}" for n, r in machine["matmul_rates"].items())
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['devices']} × "
        f"{machine['device']}, load {os.getloadavg()[0]:.1f}\n"
        f"products, 10⁹ operations/s: {rates}; copied {machine['copied'] / GIGA:.1f} GB/s\n"
        f"{'':26}{'seconds (least…most)':>28}{'10⁹':>10}{'10⁹/s':>8}{'limit':>8}{'share':>8}"
        f"{'processor':>11}",
        flush=True,
    )


def print_result(name: str, found: Any) -> None:
    """A line for each measurement, and one for each further group of figures."""
    if not isinstance(found, dict):
        print(f"{name:26}{found:10.3f}", flush=True)
    elif "share" in found:
        s, operations = found["seconds"], found["operations"] / GIGA
        time_taken = f"{s['median']:.3f} ({s['least']:.3f}…{s['most']:.3f})"
        processor = f"{found['processor_share']:.1%}" if "processor_share" in found else ""
        print(
            f"{name:26}{time_taken:>28}{operations:10.1f}{operations / s['median']:8.0f}"
            f"{found['matmul_rate'] / GIGA:8.0f}{found['share']:8.1%}{processor:>11}"
        )
        for group in ("compilation", "compiled_bytes", "memory"):
            if group in found:
                print(f"  {group}: {line(found[group])}")
        if "frames" in found:
            print(f"  frames: {found['frames']}, {found['frames_per_second']:.2f} a second")
    elif "median" in found:
        print(f"{name:26}{found['median']:10.3f} ({found['least']:.3f}…{found['most']:.3f})")
    else:
        for key, value in found.items():
            print_result(f"{name} {key}", value)


def line(group: dict) -> str:
    """Seconds and bytes in words."""
    told = (
        f"{key} {value / GIB:.2f} GiB" if isinstance(value, int) else f"{key} {value:.1f} s"
        for key, value in group.items()
        if value is not None
    )
    return ", ".join(told)


def check_comparable(before: dict, setup: dict) -> None:
    """Raise InputError where the file is of another model, batch or type."""
    for key, value in before["setup"].items():
        if setup.get(key) != value:
            raise InputError(f"{COMPARE.value}: made with another {key}: {value}")


def compared(before: dict, after: dict) -> int:
    """1 if a share that both have is worse than the margin allows, else 0; prints them."""
    old, new, worse = dict(shares(before["results"])), dict(shares(after["results"])), 0
    for name in (name for name in old if name in new):
        lost = new[name] < (1 - MARGIN.value) * old[name]
        worse += lost
        print(f"{name:26}{old[name]:8.1%} → {new[name]:.1%}{'  worse' if lost else ''}")
    print(f"{worse} worse by more than {MARGIN.value:.0%}")
    return 1 if worse else 0


def shares(found: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The shares of the limit in a result, by the path of keys that leads to each."""
    for key, value in found.items():
        if key == "share":
            yield prefix, value
        elif isinstance(value, dict):
            yield from shares(value, f"{prefix}.{key}" if prefix else key)


if __name__ == "__main__":
    run(main)

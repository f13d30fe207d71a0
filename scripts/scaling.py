"""What a training step costs on machines that are not here, as their compilers say:

    python scripts/scaling.py --config configs/vcm.py
    python scripts/scaling.py --config configs/vcm.py --topologies v5e:2x4 --fsdp 1,8
    python scripts/scaling.py --config configs/vcm.py --topologies "" --cuda

The first compiles the step for TPU slices on any CPU, data parallel and fully sharded, and prints a
line for each: work and memory of a chip, what chips send each other, and what follows for the time
of a step if the stated speeds hold. Nothing runs. It needs libtpu (pip install -e ".[tpu]"), and a
quarter of an hour and 6 GB of memory for each case. A batch that has fewer pairs of tracklets than
there are chips gets more identities. Exit status 1: something else than parameters, statistics and
part embeddings is sent.

--cuda lowers the step and the embedding of tracklets for NVIDIA GPUs instead, which needs neither.
"""

import importlib.util
import os
import time
from collections import Counter
from typing import NamedTuple

import jax
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax import collectives, command_line, sharding, train
from dinogrl_jax.collectives import Collective
from dinogrl_jax.errors import InputError, run
from dinogrl_jax.lowering import exported_embed, exported_step, step_arguments
from dinogrl_jax.methods import METHODS

TOPOLOGIES = flags.DEFINE_list("topologies", "v5e:2x4,v6e:4x4,v5e:16x16", "chip:rows×columns, …")
FSDP = flags.DEFINE_list("fsdp", "1,all", "mesh.fsdp of each topology; all: the number of chips")
CUDA = flags.DEFINE_bool("cuda", False, "lower for NVIDIA GPUs")
IDENTITIES = flags.DEFINE_integer("identities", 500, "of the training set; HITSZ-VCM has 500")
UTILISATION = flags.DEFINE_float("utilisation", 0.3, "assumed share of a chip's peak that is used")
HOP = flags.DEFINE_float("hop", 1.0, "assumed microseconds from a chip to its neighbour")
TEXT = flags.DEFINE_string("text", "", "folder for the compiler's text of each case")


class Chip(NamedTuple):
    memory: float  # bytes
    peak: float  # floating-point operations a second, bfloat16
    reads: float  # bytes a second, of its memory
    sends: float  # bytes a second to all neighbours together: half of the bidirectional bandwidth


# Source: docs.cloud.google.com/tpu/docs/v5e and v6e.
CHIPS = {"v5e": Chip(16e9, 197e12, 819e9, 200e9), "v6e": Chip(32e9, 918e12, 1638e9, 400e9)}
# libtpu asks the machine that it runs on for what these say.
NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken: two may compile at a time
}
CARRIED = ("parameters", "statistics", "embeddings", "other")
HEADER = (
    "chips | fsdp | pairs | type | TFLOP | arguments | temporaries | program | of HBM "
    "| parameters | statistics | embeddings | other | compiled"
)


def devices(topology: str) -> list:
    """The devices of a slice, e.g. "v5e:2x4"; InputError where it or libtpu is unknown."""
    if topology.split(":")[0] not in CHIPS:
        raise InputError(f"--topologies {topology}: one of {', '.join(CHIPS)} and its shape, x:2x4")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('the TPU compiler is not installed: pip install -e ".[tpu]"')
    os.environ.update(NO_TPU_HERE)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise InputError(f"--topologies {topology}: {str(error).splitlines()[0]}") from error


def enlarged(config: ConfigDict, chips: int) -> ConfigDict:
    """The configuration with so many identities in a batch that each chip has a pair."""
    config = config.copy_and_resolve_references()
    d = config.data
    d.identities_per_batch = max(d.identities_per_batch, -(-chips // d.tracklets_per_identity))
    return config


def known_sizes(config: ConfigDict, mesh: Mesh, state: train.State) -> collectives.Sizes:
    """What is sent of a step: axes of tracklets and of parts, of all chips and of one."""
    d, model = config.data, config.model
    pairs = d.identities_per_batch * d.tracklets_per_identity
    tracklets = {n // share for n in (pairs, 2 * pairs) for share in (1, mesh.size)}
    visits = sum(model.parts[1:])
    parts = {sum(model.parts), sum(model.parts) + len(model.parts) - 1, visits}
    axes = tracklets | parts | {2, mesh.size, model.embedding, IDENTITIES.value}
    return collectives.sizes(state.trained, axes)


def summed(sent: list[Collective], known: collectives.Sizes) -> tuple[Counter, Counter]:
    """How many collectives, and how many bytes, by what they carry most of, and by kind."""
    count, size = Counter(), Counter()
    for one in sent:
        arrays = [collectives.carried(shape, known) for shape in one.shapes]
        for what, bytes_ in zip(arrays, one.sizes, strict=True):
            size[what, one.kind] += bytes_ * one.times
        count[max(arrays, key=lambda what: CARRIED.index(what) == 3), one.kind] += one.times
    return count, size


def transferred(kind: str, size: int, chips: int) -> float:
    """Bytes that a chip sends, where chips pass parts of the arrays around a ring."""
    return size * (chips - 1) / chips * (2 if kind == "all-reduce" else 1)


def case(config: ConfigDict, topology: str, fsdp: int, mesh: Mesh) -> bool:
    """Print the line of a case; whether nothing but what has to be is sent."""
    chips, chip = mesh.size, CHIPS[topology.split(":")[0]]
    model = METHODS[config.method].Model(config.model, IDENTITIES.value)
    state, *batch = step_arguments(model, config)
    began = time.monotonic()
    compiled = train.make_step(model, config, mesh).lower(state, *batch).compile()
    seconds, text = time.monotonic() - began, compiled.as_text()
    if TEXT.value:
        os.makedirs(TEXT.value, exist_ok=True)
        name = f"{topology.replace(':', '_')}_{fsdp}_{config.model.compute_dtype}.txt"
        with open(os.path.join(TEXT.value, name), "w") as file:
            file.write(text)
    known = known_sizes(config, mesh, state)
    sent = collectives.collectives(text)
    count, size = summed(sent, known)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    flops = cost["flops"]
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes  # the rest is the state
    program = outputs + memory.generated_code_size_in_bytes
    parts = (memory.argument_size_in_bytes, memory.temp_size_in_bytes, program)
    cells = [f"{n / 1e9:.2f} GB" for n in parts] + [f"{sum(parts) / chip.memory:.0%}"]
    for what in CARRIED:
        number = sum(n for (carries, _), n in count.items() if carries == what)
        millions = sum(n for (carries, _), n in size.items() if carries == what) / 1e6
        cells.append(f"{number} ({millions:.2f} MB)")
    (pairs,) = batch[1].shape
    print(
        f"| {topology}, {chips} | {fsdp} | {pairs}, {pairs // chips} a chip "
        f"| {config.model.compute_dtype} | {flops / 1e12:.2f} | {' | '.join(cells)} "
        f"| {seconds:.0f} s |",
        flush=True,
    )
    kinds = ", ".join(
        f"{n} {kind} of {what} ({size[what, kind] / 1e6:.2f} MB)"
        for (what, kind), n in sorted(count.items())
    )
    work = flops / (chip.peak * UTILISATION.value)
    moved = sum(transferred(kind, n, chips) for (_, kind), n in size.items()) / chip.sends
    hops = sum(map(int, topology.split(":")[1].split("x")))
    waited = sum(one.times for one in sent) * hops * HOP.value * 1e-6
    print(
        f"  {kinds}\n  estimated: {work * 1e3:.1f} ms of work at {UTILISATION.value:.0%} of the "
        f"peak ({cost['bytes accessed'] / chip.reads * 1e3:.0f} ms if all "
        f"{cost['bytes accessed'] / 1e9:.0f} GB accessed were in its memory), "
        f"{moved * 1e3:.1f} ms to send, {waited * 1e3:.1f} ms for {hops} hops a collective: "
        f"efficiency {work / (work + moved + waited):.0%} if nothing overlaps",
        flush=True,
    )
    for one in sent:
        for shape in one.shapes:
            if collectives.carried(shape, known) == "other":
                print(f"  unexpected: {one.kind} of {shape}, {one.times} times")
    return not any(what == "other" for what, _ in size)


def cuda(config: ConfigDict) -> None:
    """Print the size of the step and of the embedding of tracklets, lowered for NVIDIA GPUs."""
    mesh = sharding.device_mesh()
    model = METHODS[config.method].Model(config.model, IDENTITIES.value)
    for name, export in (("training step", exported_step), ("embedding", exported_embed)):
        began = time.monotonic()
        size = len(export(model, config, mesh, "cuda").mlir_module_serialized)
        print(f"cuda, {name}: {size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")


def main() -> int:
    config, _ = command_line.parsed()
    jax.config.update("jax_platforms", "cpu")
    if CUDA.value:
        cuda(config)
        return 0
    print(f"| {HEADER} |\n{'|---' * (HEADER.count('|') + 1)}|")
    clean = True
    for topology in TOPOLOGIES.value:
        found = devices(topology)
        fitting = enlarged(config, len(found))
        for fsdp in FSDP.value:
            count = len(found) if fsdp == "all" else int(fsdp)
            mesh = sharding.device_mesh(count, found)
            sharding.check_batch(fitting, mesh)
            clean &= case(fitting, topology, count, mesh)
    return 0 if clean else 1


if __name__ == "__main__":
    run(main)

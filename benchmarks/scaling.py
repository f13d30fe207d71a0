"""What a training step costs on machines that are not here, as their compilers say:

    python benchmarks/scaling.py --config configs/vcm.py
    python benchmarks/scaling.py --config configs/vcm.py --topologies v5e:2x4 --fsdp 1,8
    python benchmarks/scaling.py --config configs/vcm.py --cuda

The first compiles the step for TPU slices on any CPU, data parallel and fully sharded, and prints
for each: work and memory of a chip, how many collectives there are and with how many bytes, and
what follows for the time of a step if the stated speeds hold. Nothing runs. It needs libtpu (pip
install -e ".[tpu]") and, for each case, ten minutes of a processor. A batch with fewer pairs of
tracklets than there are chips gets more identities. Exit status 1: something else than parameters,
statistics and part embeddings is sent.

--cuda lowers the step and the embedding of tracklets for NVIDIA GPUs instead, without libtpu.
"""

import importlib.util
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import collectives
import jax
from absl import flags
from collectives import Collective
from flax import linen as nn
from jax.experimental import topologies
from jax.sharding import Mesh
from lowering import exported_embed, exported_step, step_shapes
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.training.state import state_shapes
from dinogrl_jax.training.step import make_step

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


def known_sizes(config: ConfigDict, mesh: Mesh) -> collectives.Sizes:
    """What is sent of a step: axes of tracklets, of all chips and of one, and of embeddings.

    What there is for each identity may be filled up to a multiple of the chips, and shared by them
    (`ops.chunks.map_in_shares`).
    """
    method, model = method_and_model(config)
    state, clips, _ = step_shapes(method, model, config)
    output = jax.eval_shape(
        lambda variables, clips: model.apply(variables, clips, train=False), state.variables, clips
    )
    made = (output, jax.eval_shape(lambda output: method.descriptor(output, config), output))
    arrays = [x.shape for x in jax.tree.leaves(made)]
    axes = {size for shape in arrays if len(shape) <= 3 for size in shape}  # no maps of frames
    pairs = len(clips.frames)
    axes |= {n // share for n in (pairs, 2 * pairs) for share in (1, mesh.size)}
    ids = IDENTITIES.value
    share = -(-ids // mesh.size)
    filled = share * mesh.size
    known = collectives.sizes(state.trained, axes | {2, mesh.size, ids, filled, share})
    of_filled = {tuple(sorted(filled if n == ids else n for n in s)) for s in known.matrices}
    return known._replace(matrices=known.matrices | of_filled)


def method_and_model(config: ConfigDict) -> tuple[ModuleType, nn.Module]:
    method = methods.named(config.method)
    return method, method.Model(config, Facts(IDENTITIES.value))


def most(one: Collective, known: collectives.Sizes) -> str:
    """What most bytes of a collective are; "other" where any array is."""
    size = Counter()
    for shape, bytes_ in zip(one.shapes, one.sizes, strict=True):
        size[collectives.carried(shape, known)] += bytes_
    return "other" if "other" in size else size.most_common(1)[0][0]


def stage(one: Collective, carries: str) -> str:
    """Where in a step a collective is."""
    if carries == "parameters":
        return "parameters" if one.kind == "all-gather" else "gradients"
    module = re.search(r"\(Model\)+/(?:Model\.\w+/)?(\w+)", one.operation)
    place = module[1] if module else "loss"
    return f"{place}, {'backward' if 'transpose(' in one.operation else 'forward'}"


def told(sent: Iterable[Collective]) -> str:
    """How many collectives a step has, and their bytes."""
    sent = list(sent)
    size = sum(sum(one.sizes) * one.times for one in sent)
    return f"{sum(one.times for one in sent)} ({size / 1e6:.2f} MB)"


def transferred(one: Collective, chips: int) -> float:
    """Bytes that a chip sends in a step, where chips pass parts of the arrays around a ring."""
    size = sum(one.sizes) * one.times
    return size * (chips - 1) / chips * (2 if one.kind == "all-reduce" else 1)


def compiled_step(config: ConfigDict, topology: str, fsdp: int, mesh: Mesh) -> jax.stages.Compiled:
    """The training step, compiled; its text is kept where --text says."""
    method, model = method_and_model(config)
    shapes = step_shapes(method, model, config)
    compiled = make_step(method, model, config, mesh).lower(*shapes).compile()
    if TEXT.value:
        name = f"{topology.replace(':', '_')}_{fsdp}_{config.model.compute_dtype}.txt"
        Path(TEXT.value).mkdir(parents=True, exist_ok=True)
        Path(TEXT.value, name).write_text(compiled.as_text())
    return compiled


def case(config: ConfigDict, topology: str, fsdp: int, mesh: Mesh) -> bool:
    """Print what is known of a case; whether nothing but what has to be is sent."""
    began = time.monotonic()
    compiled = compiled_step(config, topology, fsdp, mesh)
    seconds, chip = time.monotonic() - began, CHIPS[topology.split(":")[0]]
    known = known_sizes(config, mesh)
    sent = [(one, most(one, known)) for one in collectives.collectives(compiled.as_text())]
    pairs = config.data.identities_per_batch * config.data.tracklets_per_identity
    cells = [
        f"{topology}, {mesh.size}",
        f"{fsdp}",
        f"{pairs}, {pairs // mesh.size} a chip",
        config.model.compute_dtype,
        f"{compiled.cost_analysis()['flops'] / 1e12:.2f}",
        *memory_cells(compiled, chip),
        *(told(one for one, what in sent if what == carried) for carried in CARRIED),
        f"{seconds:.0f} s",
    ]
    print(f"| {' | '.join(cells)} |")
    for kind in sorted({one.kind for one, _ in sent}):
        print(f"  {kind}: {told(one for one, _ in sent if one.kind == kind)}")
    for place in sorted({stage(*pair) for pair in sent}):
        print(f"  {place}: {told(pair[0] for pair in sent if stage(*pair) == place)}")
    hops = sum(map(int, topology.split(":")[1].split("x")))
    print(estimate(compiled, [one for one, _ in sent], chip, mesh.size, hops), flush=True)
    unexpected = [one for one, what in sent if what == "other"]
    for one in unexpected:
        print(f"  unexpected: {one.kind} of {one.shapes}, {one.times} times, {one.operation}")
    return not unexpected


def memory_cells(compiled: jax.stages.Compiled, chip: Chip) -> list[str]:
    memory = compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes  # the rest is the state
    program = outputs + memory.generated_code_size_in_bytes
    parts = (memory.argument_size_in_bytes, memory.temp_size_in_bytes, program)
    return [*(f"{n / 1e9:.2f} GB" for n in parts), f"{sum(parts) / chip.memory:.0%}"]


def estimate(
    compiled: jax.stages.Compiled, sent: list[Collective], chip: Chip, chips: int, hops: int
) -> str:
    """What the figures mean for the time of a step, at the stated and assumed speeds."""
    cost = compiled.cost_analysis()
    work = cost["flops"] / (chip.peak * UTILISATION.value)
    accessed = cost["bytes accessed"]
    moved = sum(transferred(one, chips) for one in sent) / chip.sends
    waited = sum(one.times for one in sent) * hops * HOP.value * 1e-6
    return (
        f"  estimated: {work * 1e3:.1f} ms of work at {UTILISATION.value:.0%} of the peak "
        f"({accessed / chip.reads * 1e3:.0f} ms if all {accessed / 1e9:.0f} GB accessed were in "
        f"the chip's memory), {moved * 1e3:.1f} ms to send, {waited * 1e3:.1f} ms for {hops} hops "
        f"a collective: efficiency {work / (work + moved + waited):.0%} if nothing overlaps"
    )


def cuda(config: ConfigDict) -> None:
    """Print the size of the step and of the embedding of tracklets, lowered for NVIDIA GPUs."""
    mesh = sharding.device_mesh()
    method, model = method_and_model(config)
    for name, export in (("training step", exported_step), ("embedding", exported_embed)):
        began = time.monotonic()
        size = len(export(method, model, config, mesh, "gpu").mlir_module_serialized)
        print(f"cuda, {name}: {size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")


def main() -> int:
    config, _ = command_line.config_and_workdir()
    jax.config.update("jax_platforms", "cpu")
    if CUDA.value:
        cuda(config)
        return 0
    state = state_shapes(*method_and_model(config), config)
    trained, frozen = (
        sum(x.size for x in jax.tree.leaves(t)) for t in (state.params, state.frozen)
    )
    slices = [(topology, devices(topology)) for topology in TOPOLOGIES.value]
    print(f"{trained / 1e6:.1f} M parameters are trained, {frozen / 1e6:.1f} M frozen\n")
    print(f"| {HEADER} |\n{'|---' * (HEADER.count('|') + 1)}|", flush=True)
    clean = True
    for topology, found in slices:
        fitting = enlarged(config, len(found))
        for fsdp in FSDP.value:
            if not (fsdp == "all" or fsdp.isdigit()):
                raise InputError(f"--fsdp {fsdp}: numbers of chips, or all")
            count = len(found) if fsdp == "all" else int(fsdp)
            mesh = sharding.device_mesh(count, found)
            sharding.check_batch(fitting, mesh)
            clean &= case(fitting, topology, count, mesh)
    return 0 if clean else 1


if __name__ == "__main__":
    run(main)

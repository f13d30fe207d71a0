"""What is measured on a card, the most important first; `benchmarks/gpu.sh` prepares and calls it.

    python -m gpu.plan --out found.jsonl --seconds 400
    python -m gpu.plan --out found.jsonl --only "flags 2,batches"  # of the groups that follow
    python -m gpu.plan --out rehearsed.jsonl --rehearse           # all of it in small, on a CPU
    python -m gpu.plan --out found.jsonl --cpu 12 --only main --seconds 1800      # at full size

    main        the original, compiled, beside ours: a step and an extraction of 192 frames, and the
                card's rate of products; before them the original's golden values
    forms       the original not compiled and with CUDA's graphs, our definitions, and our default
    flags 1, 2  candidate options of XLA, each for itself, beside none
    batches     our step and extraction of 48 to 768 frames, the original's step of 384
    golden      our golden training step in float32

A group is skipped where --seconds leave too little for it, and a line says so.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpu.turns import Group, Process, Results, measure

ROOT = Path(__file__).resolve().parents[2]
WHAT = ("step", "extract")
LOOPS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE"
FLAGS = {  # what a version of XLA lacks is left out, and a line says so
    "convolution fusion": {
        "xla_gpu_experimental_enable_conv_fusion": True,
        "xla_gpu_use_runtime_fusion": True,
    },
    "cuDNN layer norm": {"xla_gpu_enable_cudnn_layer_norm": True},
    "loops in command buffers": {"xla_gpu_enable_command_buffer": LOOPS},
    "no command buffers": {"xla_gpu_enable_command_buffer": ""},
    "fusion autotuner": {"xla_gpu_experimental_enable_fusion_autotuner": True},
    **{  # the pass that finds products for Triton finds those for cuDNN
        f"cuDNN product fusion {level}": {
            "xla_gpu_cudnn_gemm_fusion_level": level,
            "xla_gpu_enable_triton_gemm": True,
        }
        for level in (1, 2, 3)
    },
}


class Scale(NamedTuple):
    """How large everything is."""

    device: str = "cuda"
    dtype: str = "bfloat16"
    frames: int = 192
    batches: Sequence[int] = (48, 96, 192, 384, 768)
    config: str = "configs/vcm.py"
    compilations: Sequence[str] = ("on", "graphs")  # of the original
    seconds: float = 1.0  # of what groups need
    rounds: int = 6
    calls: int = 8  # in a row, as a training makes them
    flags: Sequence[str] = tuple(FLAGS)
    flags_at_once: int = 4  # whose programs are on the card together
    apart: bool = True  # a process for each program, so that its peak of memory is its own
    also: Sequence[str] = WHAT  # what flags and batches are measured by
    small: bool = False
    golden: bool = True  # values at full size


CARD = Scale()
REHEARSAL = Scale(
    device="cpu",
    dtype="float32",
    frames=8,
    batches=(8, 16),
    config="tests/benchmarks/tiny.py",
    compilations=("off", "off"),
    seconds=0.1,
    rounds=2,
    calls=1,
    flags=("convolution fusion", "no command buffers"),
    apart=False,  # starting a process and compiling a step take the most time
    also=("extract",),
    small=True,
    golden=False,
)


def of_cpu(frames: int) -> Scale:
    """Full size on a CPU, in float32."""
    main = CARD._replace(
        device="cpu", dtype="float32", frames=frames, batches=(frames,), golden=False
    )
    return main._replace(compilations=("off", "off"), rounds=3, calls=1, apart=False)


def groups(s: Scale) -> list[Group]:
    fastest = {"model.remat": "nothing"}
    main = [
        {"name": "limits", "who": "ours", "what": "limits", "dtype": s.dtype},
        *(theirs(s, what, "original", s.compilations[0]) for what in WHAT),
        *(ours(s, what, "ours", fastest) for what in WHAT),
    ]
    forms = [
        *(theirs(s, what, "original, eager", "off") for what in WHAT),
        *(theirs(s, what, "original, graphs", s.compilations[1]) for what in WHAT),
        *(ours(s, what, "ours, plain", {"ops.forms": "plain"} | fastest) for what in WHAT),
        ours(s, "step", "ours, default", {}),
    ]
    sizes = [[ours(s, what, "ours", {}, frames=frames) for what in s.also] for frames in s.batches]
    double = theirs(s, "step", "original", s.compilations[0], frames=2 * s.frames)
    values = GOLDEN_OF_ORIGINAL if s.golden else COMPONENTS
    found = [
        Group("main", processes(s, main), 180 * s.seconds, [values]),
        Group("forms", processes(s, forms), 150 * s.seconds),
        *flags(s),
        Group("batches", [*several(s, sizes), *together([double])], 150 * s.seconds),
    ]
    # Our golden step has no small size: a rehearsal does without.
    return [*found, Group("golden", [], 120 * s.seconds, [GOLDEN_STEP])] if s.golden else found


def flags(s: Scale) -> list[Group]:
    """Of an abort of XLA the other flags know nothing."""
    names, found = s.flags, []
    for first in range(0, len(names), s.flags_at_once):
        some = {"no flag": {}} | {n: FLAGS[n] for n in names[first : first + s.flags_at_once]}
        programs = [
            [ours(s, what, name, {"model.remat": "nothing"}, options) for what in s.also]
            for name, options in some.items()
        ]
        found.append(Group(f"flags {len(found) + 1}", several(s, programs), 150 * s.seconds))
    return found


ORIGINAL = ["benchmarks/original.py", "--what", "check", "--golden"]
COMPONENTS = [*ORIGINAL, "components"]
GOLDEN_OF_ORIGINAL = [*ORIGINAL, "components,eval,train_float32", "--foreground", "masked"]
GOLDEN_STEP = ["-m", "pytest", "-q", "-n0", "-m", "full", "-k", "train_float32 and fast"]
GOLDEN_STEP += ["tests/methods/dinogrl/test_dinogrl_golden.py"]


def processes(s: Scale, programs: Sequence[dict]) -> list[Process]:
    return several(s, [[program] for program in programs])


def several(s: Scale, programs: Sequence[Sequence[dict]]) -> list[Process]:
    """A process for each list of programs; a rehearsal has two for all."""
    lists = programs if s.apart else [sum(programs, [])]
    return [process for some in lists for process in together(some)]


def together(programs: Sequence[dict]) -> list[Process]:
    """A process for the original's programs, and one for ours."""
    modules = {"original": "gpu.theirs", "ours": "gpu.ours"}
    by_who = {who: [x for x in programs if x["who"] == who] for who in modules}
    return [Process(modules[who], some) for who, some in by_who.items() if some]


def theirs(s: Scale, what: str, name: str, compilation: str, frames: int = 0) -> dict:
    """A program of the original; in one graph it gathers nothing (dinogrl_in_torch/sasgl.py)."""
    frames = frames or s.frames
    return {
        "name": f"{name}, {what} of {frames}",
        "who": "original",
        "what": what,
        "frames": frames,
        "dtype": s.dtype,
        "device": s.device,
        "compile": compilation,
        "foreground": "gathered" if compilation == "off" else "masked",
        "small": s.small,
    }


def ours(
    s: Scale, what: str, name: str, settings: dict, options: dict | None = None, frames: int = 0
) -> dict:
    """A program of this package with settings, and with options of XLA."""
    frames = frames or s.frames
    return {
        "name": f"{name}, {what} of {frames}",
        "who": "ours",
        "what": what,
        "frames": frames,
        "config": str(ROOT / s.config),
        "settings": {"model.compute_dtype": s.dtype, **settings},
        "options": options or {},
    }


def card() -> dict:
    """The commit, and what the driver says of the card."""
    commit = os.environ.get("COMMIT") or told("git", "rev-parse", "HEAD") or "unknown"
    asked = "--query-gpu=name,driver_version,memory.total"
    return {"commit": commit, "card": told("nvidia-smi", asked, "--format=csv,noheader")}


def told(*command: str) -> str:
    """What a command prints; nothing where it is not installed or fails."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="file of JSON lines to append to")
    parser.add_argument("--seconds", type=float, default=400, help="that all may take")
    parser.add_argument("--only", default="", help="groups, by their names")
    parser.add_argument("--rehearse", action="store_true", help="in small, on a CPU")
    parser.add_argument("--cpu", type=int, metavar="FRAMES", help="at full size, on a CPU")
    a = parser.parse_args()
    if a.cpu is not None and (a.cpu < 1 or a.cpu % 12):
        parser.error(f"--cpu {a.cpu}: it must be a multiple of 12")
    scale = REHEARSAL if a.rehearse else of_cpu(a.cpu) if a.cpu else CARD
    if scale.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    chosen, names = groups(scale), a.only.split(",") if a.only else []
    if unknown := set(names) - {group.name for group in chosen}:
        parser.error(f"--only has {min(unknown)!r}, which is no group")
    results = Results(Path(a.out))
    results.add(**card(), rehearsed=a.rehearse)
    chosen = [group for group in chosen if group.name in names or not names]
    measure(chosen, results, time.monotonic() + a.seconds, scale.rounds, scale.calls)


if __name__ == "__main__":
    main()

"""The published DinoGRL in PyTorch, as its user would run it: a training step, an extraction.

    python benchmarks/original.py --what check --foreground masked    # golden values, on a CPU
    python benchmarks/original.py --device cuda --dtype bfloat16 --compile on
    python benchmarks/original.py --frames 24 --rounds 2

The arithmetic is that of `dinogrl_in_torch/`: frozen DINOv2 ViT-S/14, two ResNet-50s whose last
stage keeps stride 1, SASGL's branches, PBMGE, all losses, Adam in one kernel. Convolutions take
channels last, attention is PyTorch's own, bfloat16 is autocast's. What is printed are JSON lines:

    check       how far it is from the golden values, each beside its limit: of --golden, some of
                components, eval, train_float32 and train_float64 (13 minutes and 11 GiB for all on
                two busy cores). Exit status 1: one is above its limit, and nothing is measured
    step        seconds of a training step of --frames frames, half of each modality
    extract     seconds of the descriptors of as many frames of one modality

Weights and frames are random numbers. An accelerator is given eight calls in a row, as a training
gives them; their mean counts.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from dinogrl_in_torch.model import (
    DinoGRL,
    Extraction,
    Training,
    drawn_kept_maps,
    optimizer,
)
from dinogrl_in_torch.sizes import PUBLISHED, SMALL, Sizes
from torch import Tensor, nn

GOLDEN = ("components", "eval", "train_float32", "train_float64")
COMPILATION = {
    "off": None,
    "on": {},
    "graphs": {"mode": "reduce-overhead"},  # CUDA's, so that the host starts no kernels
    "trace": {"backend": "aot_eager"},  # captured whole but not compiled: for a rehearsal
}
IDENTITIES = 4  # of a batch, where the number of tracklets allows


class Options(NamedTuple):
    sizes: Sizes = PUBLISHED
    frames: int = 192
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    compile: str = "off"
    gathers: bool = False  # dinogrl_in_torch/sasgl.py

    @property
    def tracklets(self) -> int:
        return self.frames // self.sizes.frames

    def described(self) -> dict:
        dtype = str(self.dtype).removeprefix("torch.")
        foreground = "gathered" if self.gathers else "masked"
        return {"frames": self.frames, "dtype": dtype, "compile": self.compile} | {
            "foreground": foreground
        }


def step_program(o: Options) -> Callable[[], Tensor]:
    """A call of which starts one training step and returns its loss."""
    model = model_of(o).train()
    adam, pairs = optimizer(model), o.tracklets // 2
    pair = [random_frames(o, pairs) for _ in range(2)]
    identities = next(n for n in (IDENTITIES, 2, 1) if pairs % n == 0)
    labels = torch.arange(identities).repeat_interleave(pairs // identities).repeat(2).to(o.device)
    draws = torch.Generator().manual_seed(0)
    training = compiled(Training(model, o.dtype), o)

    def call() -> Tensor:
        kept = drawn_kept_maps(2 * pairs, draws).to(o.device, non_blocking=True)
        loss, _, _ = training(*pair, labels, kept)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.detach()

    return call


def extract_program(o: Options) -> Callable[[], Tensor]:
    """A call of which starts one extraction and returns the descriptors [v, p, d]."""
    extraction = compiled(Extraction(model_of(o).eval(), o.dtype), o)
    frames = random_frames(o, o.tracklets)

    def call() -> Tensor:
        with torch.inference_mode():
            return extraction(frames)

    return call


PROGRAMS = {"step": step_program, "extract": extract_program}


def model_of(o: Options) -> DinoGRL:
    """Random weights, convolutions' with channels last."""
    torch.manual_seed(0)
    if o.dtype == torch.float32:  # as exact as ours, which is so by default
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    with torch.device(o.device):
        return DinoGRL(o.sizes, o.gathers).to(memory_format=torch.channels_last)


def random_frames(o: Options, tracklets: int) -> Tensor:
    shape = tracklets * o.sizes.frames, 3, *o.sizes.frame
    return torch.randn(shape, device=o.device).to(memory_format=torch.channels_last)


def compiled(module: nn.Module, o: Options) -> nn.Module:
    """In one graph where nothing is gathered, whose number is not known before."""
    options = COMPILATION[o.compile]
    if options is None:
        return module
    return torch.compile(module, fullgraph=not o.gathers, dynamic=False, **options)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def peak(device: str) -> dict[str, int]:
    """Most bytes since the last call of `forget_peak`, on a CPU since the start."""
    if device == "cpu":
        return {"host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return {
        "device_peak": torch.cuda.max_memory_allocated(),
        "device_reserved": torch.cuda.max_memory_reserved(),
    }


def forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def seconds_of(call: Callable[[], Tensor], calls: int, device: str) -> float:
    wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    wait(device)
    return (time.perf_counter() - began) / calls


def machine(device: str) -> dict:
    cpu = device == "cpu"
    return {
        "device": platform.processor() if cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": None if cpu else torch.backends.cudnn.version(),
    }


def measured(what: str, o: Options, rounds: int) -> dict:
    calls = 1 if o.device == "cpu" else 8
    began = time.perf_counter()
    call = PROGRAMS[what](o)
    seconds_of(call, 1, o.device)  # compiles
    compilation = time.perf_counter() - began
    seconds_of(call, 1, o.device)
    forget_peak(o.device)
    took = [seconds_of(call, calls, o.device) for _ in range(rounds)]
    return {
        "what": what,
        "who": "original",
        **o.described(),
        **machine(o.device),
        "seconds": took,
        "median": statistics.median(took),
        "compilation": compilation,
        **peak(o.device),
    }


def is_right(o: Options, runs: Sequence[str]) -> bool:
    """Whether it meets the golden values; prints how far it is from each."""
    from dinogrl_in_torch import golden  # which needs this repository's tests

    right = True
    for run in runs:
        lines, within = golden.lines(run, golden.figures(run, "cpu", o.gathers))
        right &= within
        for line in lines:
            foreground = o.described()["foreground"]
            print(
                json.dumps({"what": "check", "found": line, "foreground": foreground}), flush=True
            )
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--what", default="step,extract", help="of check, step and extract")
    add("--frames", type=int, default=192, help="of a batch: tracklets of six, an even number")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--compile", choices=tuple(COMPILATION), default="off")
    add("--foreground", choices=("masked", "gathered"), help="masked where it is compiled")
    add("--golden", default=",".join(GOLDEN), help="what is checked")
    add("--small", action="store_true", help="a tiny model with tracklets of two frames")
    add("--rounds", type=int, default=5)
    a = parser.parse_args()
    sizes, what = SMALL if a.small else PUBLISHED, a.what.split(",")
    if unknown := set(what) - {"check", *PROGRAMS}:
        parser.error(f"--what has {min(unknown)!r}: there are check, step and extract")
    if a.frames < 1 or a.frames % (2 * sizes.frames):
        parser.error(f"--frames {a.frames}: it must be a multiple of {2 * sizes.frames}")
    foreground = a.foreground or ("gathered" if a.compile == "off" else "masked")
    dtype, gathers = getattr(torch, a.dtype), foreground == "gathered"
    o = Options(sizes, a.frames, dtype, a.device, a.compile, gathers)
    runs = a.golden.split(",")
    if unknown := set(runs) - set(GOLDEN):
        parser.error(f"--golden has {min(unknown)!r}: there are {', '.join(GOLDEN)}")
    if "check" in what and not is_right(o, runs):
        return 1
    for name in (name for name in what if name in PROGRAMS):
        print(json.dumps(measured(name, o, a.rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

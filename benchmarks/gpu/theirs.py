"""The original's programs, for `gpu.turns`: python -m gpu.theirs '[{"name": …}]'."""

import time

import original
import torch
from dinogrl_in_torch.sizes import PUBLISHED, SMALL

from gpu.worker import Run, serve


def made(program: dict) -> tuple[Run, dict]:
    options = original.Options(
        SMALL if program["small"] else PUBLISHED,
        program["frames"],
        getattr(torch, program["dtype"]),
        program["device"],
        program["compile"],
        program["foreground"] == "gathered",
    )
    began = time.perf_counter()
    call = original.PROGRAMS[program["what"]](options)
    for _ in range(2):  # what is compiled, and what cuDNN and Adam make at the first run
        original.seconds_of(call, 1, options.device)
    known = {"compilation": time.perf_counter() - began, **original.machine(options.device)}

    def run(calls: int) -> dict:
        original.seconds_of(call, 1, options.device)
        original.forget_peak(options.device)
        seconds = original.seconds_of(call, calls, options.device)
        return {"seconds": seconds, **original.peak(options.device)}

    return run, known


if __name__ == "__main__":
    serve(made)

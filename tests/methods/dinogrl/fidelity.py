"""How far DinoGRL here is from the published implementation, as a table:

    python tests/methods/dinogrl/fidelity.py

Prints the table of docs/fidelity.md. Each run is a process of its own, so that its memory is its
own, and can be had alone: python fidelity.py eval|train_float64|train_float32 fast|plain, by which
forms of operations (`ops/forms.py`).
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))
from commands import OPTIMISED, peak_gib  # noqa: E402


class Limit(NamedTuple):
    """The largest value that a figure may have, and why it is not another one."""

    value: float
    unit: str
    reason: str


CAREFUL = "careful float32 gives 1e-5 to 1e-4; another formula shows at 1e-2"
SWITCHES = "maxima and hinges switch: PyTorch's float32 gradients are 0.1 to 0.4 % from float64"
PROOF = "float64 leaves rounding alone, so any difference in the mathematics shows"
SUM = "float32 sums in another order"
DEVIATION = "of the deviation"
LIMITS = {
    "eval": {
        "DINOv2's last tokens": Limit(1e-3, DEVIATION, CAREFUL),
        "DINOv2's tapped tokens": Limit(1e-3, DEVIATION, CAREFUL),
        "mask probability": Limit(1e-4, "absolute", "it is rounded to the silhouette"),
        "foreground selection": Limit(0, "positions that differ", "it decides what is normalised"),
        "foreground probability": Limit(1e-4, "absolute", "as the mask's"),
        "denoising map": Limit(1e-3, DEVIATION, CAREFUL),
        "appearance map": Limit(1e-3, DEVIATION, CAREFUL),
        "gait pyramid": Limit(1e-3, DEVIATION, CAREFUL),
        "appearance pyramid": Limit(1e-3, DEVIATION, CAREFUL),
        "visible descriptors": Limit(1e-3, DEVIATION, CAREFUL),
        "infrared descriptors": Limit(1e-3, DEVIATION, CAREFUL),
        "gait losses": Limit(1e-5, "relative", SUM),
    },
    "train_float64": {
        "losses and terms": Limit(1e-9, "relative", PROOF),
        "descriptors": Limit(1e-9, DEVIATION, PROOF),
        "gradient norms": Limit(1e-6, "relative", PROOF),
        "gradient samples": Limit(1e-6, "of the tensor's largest sample", PROOF),
        "gradients that are zero": Limit(1e-9, "absolute", "rounding in front of a BatchNorm"),
        "running statistics": Limit(1e-8, "relative, of the norm", PROOF),
        "samples after an Adam step": Limit(1e-8, "absolute", PROOF),
    },
    "train_float32": {
        "losses and terms": Limit(1e-5, "relative", SUM),
        "descriptors": Limit(1e-3, DEVIATION, CAREFUL),
        "gradient norms, median": Limit(5e-4, "relative", SWITCHES),
        "gradient norms": Limit(2e-2, "relative, where above 1e-4", SWITCHES),
        "running statistics": Limit(1e-4, "relative, of the norm", CAREFUL),
    },
}


FORMS = ("fast", "plain")


def run(name: str, form: str) -> dict:
    """{"figures": {figure: value}, "seconds": …, "peak_gib": …} of a run in its own process."""
    command = [sys.executable, __file__, name, form]
    environment = {**os.environ, **OPTIMISED}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


def rows(name: str, form: str, result: dict) -> list[str]:
    """The rows of a run in the table."""
    figures = {figure: f"{value:.1e}" for figure, value in result["figures"].items()}
    lines = [
        f"| {name}, {form} | {figure} | {figures[figure]} | {limit.value:.0e} | {limit.unit} |"
        for figure, limit in LIMITS[name].items()
    ]
    cost = f"{result['seconds']:.0f} s, {result['peak_gib']:.1f} GiB"
    return [*lines, f"| {name}, {form} | *time and peak memory* | {cost} | | 2 cores |"]


def main(name: str, form: str) -> None:
    """Run and print the result as the last line."""
    from jaxtyping import install_import_hook

    began = time.monotonic()
    with install_import_hook("dinogrl_jax", "beartype.beartype"):  # annotations are checked
        from golden_runs import RUNS
    figures = RUNS[name](form)
    seconds = time.monotonic() - began
    peak = peak_gib("self")
    print(json.dumps({"figures": figures, "seconds": seconds, "peak_gib": peak}))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        print("| run | what | reached | allowed | |\n|---|---|---|---|---|")
        for name in LIMITS:
            for form in FORMS:
                print("\n".join(rows(name, form, run(name, form))), flush=True)

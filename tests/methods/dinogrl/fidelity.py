"""How far DinoGRL here is from the published implementation, as a table:

    python tests/methods/dinogrl/fidelity.py

Prints the table of docs/fidelity.md. Each run is a process of its own, so that its memory is its
own, and can be had alone: python fidelity.py eval|train_float64|train_float32 fast|plain, by which
forms of operations (`ops/forms.py`).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from fidelity_table import Limit, main  # noqa: E402

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


def runs() -> dict:
    from golden_runs import RUNS

    return RUNS


if __name__ == "__main__":
    main(__file__, LIMITS, runs)

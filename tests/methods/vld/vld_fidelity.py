"""How far VLD here is from the published implementation, as a table:

    python tests/methods/vld/vld_fidelity.py

Prints the table of docs/fidelity.md. Each run is a process of its own, so that its memory is its
own, and can be had alone: python vld_fidelity.py eval|train_float64|train_float32 fast|plain, by
which forms of operations (`ops/forms.py`).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from fidelity_table import Limit, main  # noqa: E402

FLOAT32 = "float32 and float64 of the published code differ by 4e-6; another formula shows at 1e-2"
NORMALISED = "the same by 1.2e-5, as BatchNorm of few tracklets enlarges it"
TRIPLET = "the same by 6e-5: there, a float32 distance to oneself is up to 0.05"
SUM = "float32 sums in another order"
PROOF = "float64 leaves rounding alone, so any difference in the mathematics shows"
ADAM = "the published step is stored in float32: 1e-7 of a parameter, of a rate 5 %"
DEVIATION, NORM = "of the deviation", "relative, of the norm"
OF_LARGEST, OF_RATE = "of the tensor's largest", "of the learning rate"
TOKENS = (
    "tokens after ln_pre",
    *(f"tokens of block {i}" for i in range(8, 12)),
    *(f"hub tokens of block {i}" for i in range(9, 12)),
    "tokens after ln_post",
    "aggregation",
    "class token before the last block",
    "features",
    "text features",
)
LIMITS = {
    "eval": {name: Limit(2e-5, DEVIATION, FLOAT32) for name in TOKENS}
    | {
        "text norms": Limit(2e-5, "relative", FLOAT32),
        "text logits": Limit(1e-4, DEVIATION, "sums of 512 products of either's rounding"),
        "descriptors": Limit(2e-5, DEVIATION, FLOAT32),
    },
    "train_float64": {
        "triplet losses": Limit(1e-9, "relative", PROOF),
        "other losses": Limit(1e-9, "relative", PROOF),
        "total loss": Limit(1e-9, "relative", PROOF),
        "features": Limit(1e-9, DEVIATION, PROOF),
        "logits": Limit(1e-9, DEVIATION, PROOF),
        "gradient norms, median": Limit(1e-6, "relative", PROOF),
        "gradient norms": Limit(1e-6, "relative", PROOF),
        "gradient samples": Limit(1e-6, OF_LARGEST, PROOF),
        "running statistics": Limit(1e-8, NORM, PROOF),
        "samples after an AdamW step": Limit(1e-6, OF_RATE, PROOF),
    },
    "train_float32": {
        "triplet losses": Limit(6e-5, "relative", TRIPLET),
        "other losses": Limit(2e-6, "relative", SUM),
        "total loss": Limit(2e-5, "relative", TRIPLET),
        "features": Limit(2e-5, DEVIATION, FLOAT32),
        "logits": Limit(5e-5, DEVIATION, NORMALISED),
        "gradient norms, median": Limit(5e-5, "relative", TRIPLET),
        "gradient norms": Limit(2e-4, "relative", TRIPLET),
        "gradient samples": Limit(2e-4, OF_LARGEST, TRIPLET),
        "running statistics": Limit(1e-6, NORM, SUM),
        "samples after an AdamW step": Limit(5e-2, OF_RATE, ADAM),
    },
}


def runs() -> dict:
    from vld_golden_runs import RUNS

    return RUNS


if __name__ == "__main__":
    main(__file__, LIMITS, runs)

"""What happens to a batch whose loss or gradient is not finite."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.errors import InputError, lookup

POLICIES = {"stop": True, "skip": False}  # whether the run stops
MOST_IN_A_ROW = 20  # batches that may be skipped: nothing is learned where all are


class Guard:
    """Looks at every step's term `finite`, one step behind the devices, so that they never wait.

    Such a batch has changed nothing (see `step.train_step`). Its tracklets are written to a line
    of `file`; then the run stops with an InputError, or counts the batch in `skipped`, unless all
    of the last MOST_IN_A_ROW were.

    policy: config.train.not_finite. tracklets_of: step → names, as `TrainingRecipe.names`.
    """

    def __init__(self, policy: str, tracklets_of: Callable[[int], list[str]], file: Path) -> None:
        self.stops = lookup(POLICIES, policy, "train.not_finite")
        self.tracklets_of, self.file = tracklets_of, file
        self.skipped = self.in_a_row = 0
        self.last: tuple[int, Mapping[str, Any]] | None = None

    def step(self, number: int, terms: Mapping[str, Any]) -> None:
        """Note a step that has begun, and look at the one before it."""
        self.finish()
        self.last = number, terms

    def finish(self) -> None:
        """Look at the last step too."""
        last, self.last = self.last, None
        if last is None:
            return
        if float(last[1]["finite"]):
            self.in_a_row = 0
            return
        number, terms = last
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        values = {name: repr(float(terms[name])) for name in ("total", "gradient_norm")}
        if hosts.first():
            with self.file.open("a") as file:
                record = {"step": number, **values, "tracklets": self.tracklets_of(number - 1)}
                file.write(json.dumps(record) + "\n")
        if self.stops:
            raise InputError(
                f"step {number}: the loss is {values['total']}, the gradient's norm "
                f"{values['gradient_norm']}; {self.file} names the batch. Lower "
                "optimizer.learning_rate, or leave such batches out: train.not_finite=skip"
            )
        if self.in_a_row == MOST_IN_A_ROW:
            raise InputError(
                f"step {number}: the last {MOST_IN_A_ROW} batches were all skipped, for a loss or "
                f"gradient that is not finite; {self.file} names them. Look at the starting "
                "weights and at optimizer.learning_rate"
            )

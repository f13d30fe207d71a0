"""What a run shows: lines, scalars and pictures for TensorBoard, PNG files."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu.parameter_overview import count_parameters, make_table
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.progress import duration
from dinogrl_jax.methods.contract import Group
from dinogrl_jax.retrieval.tables import FIGURES, figures_rows
from dinogrl_jax.training.state import State


class TrainingLog:
    """The lines, scalars and pictures of a run from step `first` to step `last`, in its folder.

    Scalars and pictures are written by one process, and are on disk when a call returns:
    tensorboardX's own queue waits for ever where its thread has died of a full disk. Where nothing
    can be written, the run is told once and goes on.

    config: its section `train`. groups: of the method's parameters, whose rates are shown.
    """

    def __init__(
        self, folder: Path, config: ConfigDict, groups: Sequence[Group], first: int, last: int
    ) -> None:
        self.folder, self.config, self.first, self.last = folder, config, first, last
        self.writes, self.events = hosts.first(), None
        self.rates = [group.rate for group in groups if group.rate is not None]
        self.began, self.noted = time.monotonic(), first
        self.sums: dict[str, Array] = {}
        self.steps = 0  # in the sums

    def step(self, number: int, terms: Mapping[str, Array]) -> None:
        """Notes the loss's terms; their means every `train.log_every` steps and at the end."""
        self.sums, self.steps = sums_with(self.sums, dict(terms)), self.steps + 1
        due = number % self.config.log_every == 0 or number == self.last
        if due or number == self.first + 1:
            jax.block_until_ready(terms)
        per_second = (number - self.noted) / (time.monotonic() - self.began)
        if number == self.first + 1:
            print(f"first step after {duration(1 / per_second)}, for it was compiled", flush=True)
            self.began, self.noted = time.monotonic(), number
        if not due:
            return
        values = {name: float(x / self.sums["finite"]) for name, x in self.sums.items()}
        values["finite"] = float(self.sums["finite"] / self.steps)
        self.sums, self.steps = {}, 0
        self.began, self.noted = time.monotonic(), number
        rates = [float(rate(number - 1)) for rate in self.rates]
        shown = {f"learning_rate{f'_{i}' * (i > 1)}": rate for i, rate in enumerate(rates, 1)}
        self._write(number, "train", {**values, **shown, "steps_per_second": per_second})
        epoch, left = -(-number // self.config.steps_per_epoch), (self.last - number) / per_second
        different = ", ".join(dict.fromkeys(f"{rate:.2e}" for rate in rates))
        print(
            f"step {number}/{self.last}  epoch {epoch}  loss {values['total']:.4f}  "
            f"rate {different}  {per_second:.2f} steps/s  {duration(left)} left",
            flush=True,
        )

    def evaluation(self, number: int, figures: Mapping[str, Mapping[str, float]]) -> None:
        """The figures as a table's rows, and as scalars."""
        for direction, row in figures.items():
            self._write(number, direction, row)
        heads = f"evaluation at step {number}: {', '.join(FIGURES)}, chance"
        print(heads, *figures_rows(figures), sep="\n")
        self.began, self.noted = time.monotonic(), number

    def picture(self, number: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """In TensorBoard, and as pictures/<name>.png, which the next one replaces."""
        self._write(number, name, picture)

    def _write(self, number: int, name: str, shown: Mapping[str, float] | np.ndarray) -> None:
        """A group of scalars, or a picture."""
        if not self.writes:
            return
        # Not above: where PyTorch is installed it is imported too, which takes a second.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event

        try:
            if self.events is None:
                (self.folder / "tensorboard").mkdir(exist_ok=True)
                events = str(self.folder / "tensorboard" / "events")
                self.events = event_file_writer.EventsWriter(events)
            if isinstance(shown, np.ndarray):
                made = [summary.image(name, shown, dataformats="HWC")]
                (self.folder / "pictures").mkdir(exist_ok=True)
                Image.fromarray(shown).save(self.folder / "pictures" / f"{name}.png")
            else:
                made = [summary.scalar(f"{name}/{key}", value) for key, value in shown.items()]
            for one in made:
                self.events.write_event(Event(wall_time=time.time(), step=number, summary=one))
            self.events.flush()
        except OSError as error:
            self.writes = False
            print(
                f"{self.folder}: scalars and pictures cannot be written ({error.strerror}); "
                "the run goes on without them",
                file=sys.stderr,
            )


@jax.jit
def sums_with(sums: dict[str, Array], terms: dict[str, Array]) -> dict[str, Array]:
    """The sums of a loss's terms with those of another step, which only counts if finite."""
    kept = {name: jnp.where(terms["finite"] > 0, x, 0) for name, x in terms.items()}
    return jax.tree.map(jnp.add, sums, kept) if sums else kept


def parameter_table(state: State) -> str:
    """The numbers of parameters of each module at the top of a model, as lines of text."""
    row = dataclasses.make_dataclass("Row", ["module", "trained", "frozen"])
    trees, rows = (state.params, state.frozen), []
    for name in sorted(state.params.keys() | state.frozen.keys()):
        rows.append(row(name, *(int(count_parameters({name: x.get(name, {})})) for x in trees)))
    rows.append(row("all", *(int(count_parameters(x)) for x in trees)))
    return make_table(rows)

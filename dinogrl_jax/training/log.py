"""What a run shows: lines, scalars as JSON and for TensorBoard, pictures there and as PNG."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu.parameter_overview import count_parameters, make_table
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.interface.progress import duration
from dinogrl_jax.methods.contract import Group
from dinogrl_jax.retrieval.tables import FIGURES, figures_rows
from dinogrl_jax.training.state import State

METRICS = "metrics.jsonl"  # every line a step's scalars, or a direction's figures
CONSTANT = ("queries", "gallery", "chance_rank1")  # of the figures


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
        self._scalars(number, "train", {**values, **shown, "steps_per_second": per_second})
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
            self._scalars(number, direction, row, constant=CONSTANT)
        heads = f"evaluation at step {number}: {', '.join(FIGURES)}, chance"
        print(heads, *figures_rows(figures), sep="\n")
        self.began, self.noted = time.monotonic(), number

    def picture(self, number: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """In TensorBoard, and as pictures/<name>.png, which the next one replaces."""
        with self._written() as events:
            if events:
                (self.folder / "pictures").mkdir(exist_ok=True)
                Image.fromarray(picture).save(self.folder / "pictures" / f"{name}.png")
                events.add(number, events.image(name, picture, dataformats="HWC"))

    def settings(self, config: ConfigDict) -> None:
        """All settings as a text in TensorBoard."""
        with self._written() as events:
            if events:
                lines = "".join(f"    {line}\n" for line in str(config).splitlines())
                events.add(self.first, events.text("settings", lines))

    def _scalars(
        self, number: int, group: str, values: Mapping[str, float], constant: Sequence[str] = ()
    ) -> None:
        """A line of metrics.jsonl; and in TensorBoard, where what is constant draws no chart."""
        with self._written() as events:
            if events:
                record = {"step": number, "time": round(time.time(), 3), "group": group, **values}
                with (self.folder / METRICS).open("a") as file:
                    file.write(json.dumps(record) + "\n")
                drawn = {key: value for key, value in values.items() if key not in constant}
                made = [events.scalar(f"{group}/{key}", value) for key, value in drawn.items()]
                events.add(number, *made)

    @contextlib.contextmanager
    def _written(self) -> Iterator["Events | None"]:
        """Where to write to; None on other processes, and where nothing can be written."""
        try:
            if self.writes and self.events is None:
                keep_lines_to(self.folder / METRICS, self.first)
                self.events = Events(self.folder / "tensorboard")
            yield self.events if self.writes else None
        except (OSError, InputError) as error:
            self.writes = False
            reason = getattr(error, "strerror", None) or error
            print(
                f"{self.folder}: scalars and pictures cannot be written ({reason}); "
                "the run goes on without them",
                file=sys.stderr,
            )


class Events:
    """TensorBoard's file in a folder, and what can be added to it."""

    def __init__(self, folder: Path) -> None:
        # Not above: where PyTorch is installed it is imported too, which takes a second.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event

        folder.mkdir(exist_ok=True)
        self.file, self.event = event_file_writer.EventsWriter(str(folder / "events")), Event
        self.image, self.scalar, self.text = summary.image, summary.scalar, summary.text

    def add(self, number: int, *summaries: Any) -> None:
        """Write summaries of a step, and wait until they are with the system."""
        for one in summaries:
            self.file.write_event(self.event(wall_time=time.time(), step=number, summary=one))
        self.file.flush()


def keep_lines_to(path: Path, step: int) -> None:
    """Take from a file of lines of JSON those of later steps, which a run makes anew."""
    if path.exists():
        with path.open(errors="replace") as file:
            kept = [line for line in file if (found := step_of(line)) is not None and found <= step]
        with atomic_write(path) as draft:
            draft.writelines(line.encode() for line in kept)


def step_of(line: str) -> int | None:
    """The step of a line of metrics.jsonl; None where a kill left half of it."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None


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

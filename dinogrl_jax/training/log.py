"""What a run shows: lines, scalars and pictures for TensorBoard, PNG files."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import metrics, parameter_overview
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.progress import duration
from dinogrl_jax.methods.contract import Group
from dinogrl_jax.retrieval.tables import FIGURES, figures_rows
from dinogrl_jax.training.state import State


class Summary:
    """Writes scalars and pictures into a working directory, if this process is the one that writes.

    Each is on disk when its call returns: tensorboardX's own queue waits for ever where its thread
    has died of a full disk. Where nothing can be written, the run is told once and goes on.
    """

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self.writes = hosts.first()
        self.events = None

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        with self._told_once():
            self._write("scalar", {f"{group}/{name}": x for name, x in values.items()}, step)

    def picture(self, name: str, picture: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """In TensorBoard, and as pictures/<name>.png, which the next one replaces."""
        with self._told_once():
            self._write("image", {name: picture}, step, dataformats="HWC")
            if self.writes:
                (self.workdir / "pictures").mkdir(exist_ok=True)
                Image.fromarray(picture).save(self.workdir / "pictures" / f"{name}.png")

    def _write(self, kind: str, values: Mapping[str, Any], step: int, **options: str) -> None:
        if not self.writes:
            return
        # Not above: where PyTorch is installed it is imported too, which takes a second.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event

        if self.events is None:
            (self.workdir / "tensorboard").mkdir(exist_ok=True)
            events = str(self.workdir / "tensorboard" / "events")
            self.events = event_file_writer.EventsWriter(events)
        for name, value in values.items():
            shown = getattr(summary, kind)(name, value, **options)
            self.events.write_event(Event(wall_time=time.time(), step=step, summary=shown))
        self.events.flush()

    @contextlib.contextmanager
    def _told_once(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.writes = False
            print(
                f"{self.workdir}: scalars and pictures cannot be written ({error.strerror}); "
                "the run goes on without them",
                file=sys.stderr,
            )


class TrainingLog:
    """The lines and scalars of a training run.

    groups: of the method's parameters, whose rates are shown.
    """

    def __init__(
        self,
        config: ConfigDict,
        groups: Sequence[Group],
        summary: Summary,
        first: int,
        last: int,
    ) -> None:
        self.config, self.summary, self.last = config.train, summary, last
        self.rates = [group.rate for group in groups if group.rate is not None]
        self.began, self.noted = time.monotonic(), first
        self.means: Means = {}

    def step(self, number: int, terms: Mapping[str, Array]) -> None:
        """Notes the loss's terms; their means every `train.log_every` steps and at the end."""
        self.means = means_with(self.means, dict(terms))
        if number % self.config.log_every and number != self.last:
            return
        values = {name: float(mean.compute()) for name, mean in self.means.items()}  # waits
        per_second = (number - self.noted) / (time.monotonic() - self.began)
        self.means, self.began, self.noted = {}, time.monotonic(), number
        rates = [float(rate(number - 1)) for rate in self.rates]
        shown = {f"learning_rate{f'_{i}' * (i > 1)}": rate for i, rate in enumerate(rates, 1)}
        self.summary.scalars("train", {**values, **shown, "steps_per_second": per_second}, number)
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
            self.summary.scalars(direction, row, number)
        heads = f"evaluation at step {number}: {', '.join(FIGURES)}, chance"
        print(heads, *figures_rows(figures), sep="\n")
        self.began, self.noted = time.monotonic(), number


Means = dict[str, metrics.Average]


@jax.jit
def means_with(means: Means, terms: dict[str, Array]) -> Means:
    """The means of a loss's terms with those of another step, which only counts if finite."""
    finite = terms["finite"][None]
    found = {
        name: metrics.Average.from_model_output(
            value[None], mask=None if name == "finite" else finite
        )
        for name, value in terms.items()
    }
    return {name: means[name].merge(mean) if means else mean for name, mean in found.items()}


@dataclasses.dataclass
class ModuleRow:
    """How many parameters a module at the top of the model has."""

    module: str
    trained: int
    frozen: int


def parameter_table(state: State) -> str:
    """The numbers of parameters by module, as lines of text."""

    def count(tree: Mapping, names: Iterable[str]) -> int:
        return parameter_overview.count_parameters({name: tree.get(name, {}) for name in names})

    modules = {name: [name] for name in sorted(state.params.keys() | state.frozen.keys())}
    rows = [
        ModuleRow(title, int(count(state.params, names)), int(count(state.frozen, names)))
        for title, names in {**modules, "all": [*modules]}.items()
    ]
    return parameter_overview.make_table(rows)

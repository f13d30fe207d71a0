"""Figures of runs with intervals, and how far they are from those of the first."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.comparison.runs import Run
from dinogrl_jax.retrieval.metrics import Result, bootstrap_intervals, figure_values
from dinogrl_jax.retrieval.tables import FIGURES

WIDTH = 22  # letters of a column


class Estimate(NamedTuple):
    """A mean over queries, and its 95 % bootstrap interval; fractions of 1."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether its interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Compared(NamedTuple):
    """One direction: figures by the name of a run, and differences of all runs but the first."""

    figures: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]  # to the first run, over the same queries
    queries: int
    gallery: int


def compared(runs: Sequence[Run]) -> dict[str, Compared]:
    """Each direction of runs that `read_runs` has read."""
    return {name: _compared_direction(name, runs) for name in runs[0].scored.directions}


def _compared_direction(direction: str, runs: Sequence[Run]) -> Compared:
    results = {run.name: run.scored.directions[direction].result for run in runs}
    values = {name: figure_values(result) for name, result in results.items()}
    first, *others = values
    differences = {
        name: {key: values[name][key] - values[first][key] for key in FIGURES} for name in others
    }
    one = results[first]
    return Compared(
        {name: _estimates(x) for name, x in values.items()},
        {name: _estimates(x) for name, x in differences.items()},
        one.queries,
        one.gallery,
    )


def _estimates(values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    intervals = bootstrap_intervals(values)
    return {key: Estimate(float(values[key].mean()), *intervals[key]) for key in FIGURES}


def text_of(found: Mapping[str, Compared]) -> str:
    """The figures and the differences as a table of text, in percent."""
    blocks = [_text_of_direction(name, one) for name, one in found.items()]
    note = "percent, [95 % interval over queries]; * the interval of a difference leaves out 0"
    return "\n\n".join([*blocks, note])


def _text_of_direction(direction: str, found: Compared) -> str:
    first, size = next(iter(found.figures)), f"{found.queries} queries × {found.gallery}"
    columns = [[name, *map(figure_text, row.values())] for name, row in found.figures.items()]
    columns += [
        [f"{name} − {first}", *map(difference_text, row.values())]
        for name, row in found.differences.items()
    ]
    table = [["", *FIGURES], *columns]
    widths = [8, *(max(WIDTH, *map(len, column)) + 1 for column in columns)]
    lines = [
        "".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*table, strict=True)
    ]
    return "\n".join([f"{direction.replace('_', ' ')}, {size}", *map(str.rstrip, lines)])


def figure_text(x: Estimate) -> str:
    return f"{100 * x.value:.2f} [{100 * x.low:.1f}, {100 * x.high:.1f}]"


def difference_text(x: Estimate) -> str:
    return f"{100 * x.value:+.2f} [{100 * x.low:+.1f}, {100 * x.high:+.1f}]{'*' * x.is_clear}"


def cmc(result: Result) -> np.ndarray:
    """Points (rank, share of queries with a match by then), [k, 2]."""
    ranks = np.arange(1, min(50, max(result.gallery, 2)) + 1)
    shares = (result.first[result.valid, None] <= ranks).mean(0)
    return np.stack([ranks, shares], 1)

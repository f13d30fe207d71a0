"""Figures as lines of text."""

from collections.abc import Mapping
from typing import Any

FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
DIRECTIONS = ("visible_to_infrared", "infrared_to_visible")


def results_table(results: Mapping[str, Any]) -> str:
    """The figures in results.json of a run, in percent."""
    about = f"{results['protocol']}, {results['checkpoint']} checkpoint, step {results['step']}"
    return figures_table(results, about)


def figures_table(figures: Mapping[str, Any], about: str) -> str:
    """A line about the figures, their heads, and a row for each direction that is there."""
    header = "".join(f"{name:>8}" for name in (*FIGURES, "chance"))
    return "\n".join([about, f"{'':22}{header}   queries × gallery", *figures_rows(figures)])


def figures_rows(figures: Mapping[str, Any]) -> list[str]:
    """The figures of each direction that is there in percent, and chance."""
    rows = []
    for direction in filter(figures.__contains__, DIRECTIONS):
        row = figures[direction]
        cells = "".join(f"{100 * row[name]:8.2f}" for name in (*FIGURES, "chance_rank1"))
        size = f"{row['queries']} × {row['gallery']}"
        rows.append(f"{direction.replace('_', ' '):22}{cells}   {size}")
    return rows

"""Runs of a method at full size, each in a process of its own, and the table of their figures."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from commands import OPTIMISED, peak_gib

FORMS = ("fast", "plain")  # of operations, see dinogrl_jax/ops/forms.py


class Limit(NamedTuple):
    """The largest value that a figure may have, and why it is not another one."""

    value: float
    unit: str
    reason: str


Limits = Mapping[str, Mapping[str, Limit]]  # of a run's figures, by name


def run(script: str, name: str, form: str) -> dict:
    """{"figures": {figure: value}, "seconds": …, "peak_gib": …} of a run of a script."""
    command = [sys.executable, script, name, form]
    environment = {**os.environ, **OPTIMISED}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


def rows(limits: Limits, name: str, form: str, result: dict) -> list[str]:
    """The rows of a run in the table."""
    figures = {figure: f"{value:.1e}" for figure, value in result["figures"].items()}
    lines = [
        f"| {name}, {form} | {figure} | {figures[figure]} | {limit.value:.0e} | {limit.unit} |"
        for figure, limit in limits[name].items()
    ]
    cost = f"{result['seconds']:.0f} s, {result['peak_gib']:.1f} GiB"
    return [*lines, f"| {name}, {form} | *time and peak memory* | {cost} | | 2 cores |"]


def main(script: str, limits: Limits, runs: Callable[[], Mapping[str, Callable]]) -> None:
    """One run, whose result is the last line; without arguments all of them, as a table.

    runs: imports the functions of a form that give figures, once annotations are checked.
    """
    if len(sys.argv) == 3:
        from jaxtyping import install_import_hook

        began = time.monotonic()
        with install_import_hook("dinogrl_jax", "beartype.beartype"):
            functions = runs()
        name, form = sys.argv[1:]
        figures = functions[name](form)
        seconds, peak = time.monotonic() - began, peak_gib("self")
        print(json.dumps({"figures": figures, "seconds": seconds, "peak_gib": peak}))
        return
    print("| run | what | reached | allowed | |\n|---|---|---|---|---|")
    for name in limits:
        for form in FORMS:
            print("\n".join(rows(limits, name, form, run(script, name, form))), flush=True)

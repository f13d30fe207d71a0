"""Command lines of scripts without a configuration, and paths on any command line."""

import argparse
import math
import sys
from pathlib import Path

from dinogrl_jax.interface.checks import expanded_path
from dinogrl_jax.interface.config_files import ROOT
from dinogrl_jax.interface.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argparse parser that refuses in one line, and shows a script's own text as it is."""

    def __init__(self, description: str | None = None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        name = command_name(Path(sys.argv[0]))
        super().__init__(prog=name, description=description, formatter_class=layout)

    def error(self, message: str) -> None:
        raise InputError(f"command line: {message}; --help says what there is")


def command_name(script: Path) -> str:
    """What runs a script: `dinogrl_jax train`, or its own name where it is none of those."""
    is_command = script.absolute().parent == ROOT / "scripts"
    return f"dinogrl_jax {script.stem}" if is_command else script.name


def path(text: str) -> str:
    """The type of an option that names a file or a folder: `~` is the home."""
    return expanded_path(text, "path")


def whole_number(least: int):
    """The type of an option for whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or len(text) > 18 or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from {least} on")
        return int(text)

    return number


def number(least: float | int = -math.inf, most: float | int = math.inf):
    """The type of an option for numbers of a range."""

    def parsed(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            ends = f"from {least:g} to {most:g}" if most < math.inf else f"from {least:g} on"
            limits = f" {ends}" if least > -math.inf else ""
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number{limits}")
        return value

    return parsed

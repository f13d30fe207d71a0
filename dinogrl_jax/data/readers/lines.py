"""Text files of one item per line; all wrong lines of a file are found at once."""

import os
import re
from collections.abc import Callable
from typing import Any

from dinogrl_jax.data.problems import Problem
from dinogrl_jax.interface.errors import InputError


def numbered_lines(path: str) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number in the file, from 1 on."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def parsed_lines(
    path: str, parse: Callable[[str], Any], problems: list[Problem], kind: str
) -> list[tuple[int, Any]]:
    """The number of each line and `parse` of it; None if that raises ValueError, now a problem."""
    results = []
    for number, text in numbered_lines(path):
        try:
            results.append((number, parse(text)))
        except ValueError as error:
            problems.append(Problem(kind, str(error), path, number))
            results.append((number, None))
    if not results:
        problems.append(Problem("empty", f"{os.path.basename(path)} is empty", path))
    return results


def integers(text: str) -> list[int]:
    """The integers of a line, separated by spaces or commas; ValueError names any other word."""
    words = re.findall(r"[^\s,]+", text)
    for word in words:
        if not re.fullmatch(r"[+-]?[0-9]+", word):
            raise ValueError(f"{word[:40]!r} is not a whole number")
    return [int(word) for word in words]


def discarded_paths(path: str, prefixes: tuple[str, ...]) -> set[str]:
    """The paths that a discard list names, without their prefixes; none if `path` is empty."""
    if not path:
        return set()
    lines = [text.removeprefix("./") for _, text in numbered_lines(path)]
    for prefix in prefixes:
        lines = [text.removeprefix(prefix) for text in lines]
    return set(lines)

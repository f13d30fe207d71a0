"""Text files of one item per line; all wrong lines of a file are found at once."""

import os
import re
from collections.abc import Callable
from typing import Any

from dinogrl_jax.data.problems import Problem
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import read_text

WORD = re.compile(r"[+-]?[0-9]{1,18}")
AS_SAVETXT = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)


def numbered_lines(path: str) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number in the file, from 1 on.

    Raises InputError for a file that cannot be read or is no text in UTF-8 or ASCII.
    """
    lines = enumerate(re.split("\r\n|\r|\n", read_text(path, errors="replace")), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def parsed_lines(
    path: str, parse: Callable[[str], Any], problems: list[Problem], kind: str
) -> list[tuple[int, Any]]:
    """The number of each line and `parse` of it; None if that raises an error, now a problem."""
    results = []
    for number, text in numbered_lines(path):
        try:
            results.append((number, parse(text)))
        except (ValueError, InputError) as error:
            problems.append(Problem(kind, str(error), path, number))
            results.append((number, None))
    if not results:
        problems.append(Problem("empty", f"{os.path.basename(path)} is empty", path))
    return results


def integers(text: str) -> list[int]:
    """The whole numbers of a line, separated by spaces or commas.

    They may be written as numpy.savetxt does. Raises ValueError that names any other word.
    """
    return [integer(word) for word in re.findall(r"[^\s,]+", text)]


def integer(word: str) -> int:
    """The whole number that a word says; ValueError if it says none, or one of too many digits."""
    if WORD.fullmatch(word):
        return int(word)
    number = float(word) if AS_SAVETXT.fullmatch(word) else 0.5
    if not number.is_integer() or abs(number) >= 1 << 53:
        raise ValueError(f"{word[:40]!r} is not a whole number")
    return int(number)


def discarded_paths(path: str, prefixes: tuple[str, ...]) -> set[str]:
    """The paths that a discard list names, without their prefixes; none if `path` is empty."""
    if not path:
        return set()
    lines = [text.removeprefix("./") for _, text in numbered_lines(path)]
    for prefix in prefixes:
        lines = [text.removeprefix(prefix) for text in lines]
    return set(lines)

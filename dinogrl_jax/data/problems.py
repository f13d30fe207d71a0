"""What is wrong with a data set: a record for each problem, and many of them in one message."""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError

SHORT = "short tracklet"  # the kind of those that vanish by a filter
SHOWN = 10  # of many problems, as many as one message spells out

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    kind: str  # problems of one kind have one cause and one cure
    text: str
    file: str = ""
    line: int = 0  # from 1 on; 0: not one line, and the text names the file
    fatal: bool = True  # training or evaluation would refuse the data set, or stop there

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}: {self.text}" if self.line else self.text


def listed(items: Sequence) -> str:
    """The first items, comma-separated, and how many more there are."""
    words = ", ".join(str(item) for item in items[:SHOWN])
    return f"{words} and {len(items) - SHOWN} more" if len(items) > SHOWN else words


def refuse(problems: Sequence[str], where: str) -> None:
    """Raise one InputError for all problems, if there are any: the first in words, then a count."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
        raise InputError(f"{where}: {'; '.join(problems[:SHOWN])}{more}")


def settle(problems: Iterable[Problem], where: str) -> None:
    """Raise one InputError for the fatal problems; without any, warn of the others together."""
    problems = list(problems)
    refuse([str(problem) for problem in problems if problem.fatal], where)
    if problems:
        logger.warning("%s: kept in spite of it: %s", where, listed(problems))

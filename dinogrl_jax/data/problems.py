"""What is wrong with a data set: a record for each problem, and many of them in one message."""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError

SHORT = "short tracklet"  # the kind of those that vanish by a filter
MAX_SHOWN = 10  # of many problems, as many as one message spells out

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


def enumeration(items: Sequence) -> str:
    """The first items, comma-separated, and how many more there are."""
    words = ", ".join(str(item) for item in items[:MAX_SHOWN])
    return f"{words} and {len(items) - MAX_SHOWN} more" if len(items) > MAX_SHOWN else words


def raise_if_any(problems: Sequence[str], where: str) -> None:
    """Raise one InputError for all problems, if there are any: the first in words, then a count."""
    if problems:
        more = (
            f"; and {len(problems) - MAX_SHOWN} more problems" if len(problems) > MAX_SHOWN else ""
        )
        raise InputError(f"{where}: {'; '.join(problems[:MAX_SHOWN])}{more}")


def raise_or_warn(problems: Iterable[Problem], where: str) -> None:
    """Raise one InputError for the fatal problems; without any, warn of the others together."""
    problems = list(problems)
    raise_if_any([str(problem) for problem in problems if problem.fatal], where)
    if problems:
        logger.warning("%s: kept in spite of it: %s", where, enumeration(problems))

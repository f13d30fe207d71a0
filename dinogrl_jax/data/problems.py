"""Problems of a data set: a record for each, and one message for many."""

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import printable

# Kinds of the tracklets that a filter leaves out: by data.minimum_frames, and by a discard list.
SHORT, DISCARDED = "short tracklet", "discarded tracklet"
MAX_SHOWN = 10  # problems that one message spells out

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    kind: str  # problems of one kind have the same cause and the same remedy
    text: str
    file: str = ""
    line: int = 0  # from 1 on; 0 if it is no single line: the text names the file then
    fatal: bool = True  # training or evaluation would refuse the data set or stop at it
    split: str = ""  # "train" or "test", of a tracklet that is left out
    modality: str = ""

    def __str__(self) -> str:
        place = f"{os.path.basename(self.file)}:{self.line}: " if self.line else ""
        return printable(f"{place}{self.text}")


class Notes(list):
    """Problems that a reader collects for a training: at a fatal one it raises all the same."""


def are_refused(problems: list[Problem] | None) -> bool:
    """Whether a reader that gets this list raises at fatal problems, or collects them too."""
    return problems is None or isinstance(problems, Notes)


def enumeration(items: Sequence, between: str = ", ", more: str = " and {} more") -> str:
    """The first items, and how many more there are."""
    words = between.join(printable(item) for item in items[:MAX_SHOWN])
    return words + more.format(len(items) - MAX_SHOWN) if len(items) > MAX_SHOWN else words


def raise_if_any(problems: Sequence, where: str) -> None:
    """Raise one InputError if there are problems: the first in words, and how many more."""
    if problems:
        raise InputError(f"{where}: {enumeration(problems, '; ', '; and {} more problems')}")


def raise_or_warn(
    problems: Sequence[Problem], where: str, collected: list[Problem] | None = None
) -> None:
    """Raise one InputError for all fatal problems; without any, log one warning of the rest.

    Where problems are `collected`, they are added there; for validation, which collects fatal ones
    too, nothing is raised and nothing logged.
    """
    if are_refused(collected):
        raise_if_any([problem for problem in problems if problem.fatal], where)
        kept = [problem for problem in problems if problem.kind not in (SHORT, DISCARDED)]
        if kept:
            logger.warning("%s: kept in spite of it: %s", where, enumeration(kept))
    if collected is not None:
        collected += problems

"""The one exception for bad input, and how a script reports it."""

import errno
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

NOT_WRITABLE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
}


class InputError(Exception):
    """What the user gave cannot be used.

    The message is one line: it names the file, line, key or setting, and says what to do.
    """


def lookup(table: Mapping[str, Any], name: str, setting: str) -> Any:
    """What a setting's value names in a table; InputError lists the names there are."""
    if name not in table:
        raise InputError(f"{setting} = {name!r}: there is {', '.join(table)}")
    return table[name]


def run(main: Callable[[], int | None]) -> None:
    """Exit with main's status; bad input becomes one line on stderr and status 2.

    What orbax logs is left out: it has a traceback for whatever is raised as an error as well.
    """
    logging.set_verbosity(logging.FATAL)
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        where = error.filename or "a file"
        print(f"error: {where} cannot be written: {error.strerror}", file=sys.stderr)
    sys.exit(2)

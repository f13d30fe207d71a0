"""The exception for bad input, and how scripts report it."""

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging

from dinogrl_jax.interface.text import printable

NOT_WRITABLE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
}


INTERRUPTED = 130  # exit status, as shells have it for SIGINT


class InputError(Exception):
    """The input of the user cannot be used.

    The message is one line: it names the file, line, key or setting and says what to do.
    """


@contextlib.contextmanager
def errors_naming(place: object) -> Iterator[None]:
    """InputErrors of the block begin with a file, or with a name of something in it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error.__cause__


def lookup(table: Mapping[str, Any], name: str, setting: str) -> Any:
    """The entry of a table that a setting names; InputError lists the names that exist."""
    if name not in table:
        raise InputError(f"{setting} = {name!r}: there is {', '.join(table)}")
    return table[name]


def run(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its status; bad input becomes one line on stderr and status 2.

    Ctrl-C becomes a line and status 130. Letters that a terminal cannot show are written as codes.
    Orbax also logs a traceback of each error that it raises; this log is switched off.
    """
    logging.set_verbosity(logging.FATAL)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # of a notebook, say
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
    except OSError as error:
        where = printable(error.filename or "a file")
        if error.errno == errno.ENAMETOOLONG:
            print(f"error: {where[:80]}… is too long for a name", file=sys.stderr)
            sys.exit(2)
        if error.errno not in NOT_WRITABLE:
            raise
        print(f"error: {where} cannot be written: {error.strerror}", file=sys.stderr)
    sys.exit(2)

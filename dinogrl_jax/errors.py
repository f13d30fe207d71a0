"""The one exception for bad input, and how a script reports it."""

import sys
from collections.abc import Callable

from absl import logging


class InputError(Exception):
    """What the user gave cannot be used.

    The message is one line: it names the file, line, key or setting, and says what to do.
    """


def run(main: Callable[[], int | None]) -> None:
    """Exit with main's status; bad input becomes one line on stderr and status 2.

    Warnings through absl are left out: orbax has one for each checkpoint without figures.
    """
    logging.set_verbosity(logging.ERROR)
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

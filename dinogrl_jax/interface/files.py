"""Files that are whole or absent."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dinogrl_jax.interface.errors import InputError


@contextlib.contextmanager
def complete(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which appears under its name when the block ends without an error.

    On the disk before the name is: else a power failure may leave an empty file of that name.
    InputError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()

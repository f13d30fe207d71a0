"""Files that are complete or absent, and JSON files."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dinogrl_jax.interface.errors import InputError


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name beside a path for what is renamed to it when the block ends without an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # it is renamed, or a folder
            draft.unlink()
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which appears at `path` when the block ends without an error.

    Its content reaches the disk before its name does: otherwise a power failure could leave an
    empty file of that name.

    Raises InputError if the file cannot be written.
    """
    with _draft(path) as draft, draft.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all; InputError if it cannot be written."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[Path]:
    """A folder to write to, which appears at `path` when the block ends without an error.

    Raises InputError if a file or a folder with content is there, or nothing can be written.
    """
    place = Path(path).absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise InputError(f"{path} exists: choose another --out")
    with _draft(place) as draft:
        draft.mkdir(parents=True)
        yield draft

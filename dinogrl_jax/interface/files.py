"""Files that are complete or absent, files that are read with limits, and JSON files."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.shapes import Shape, json_value
from dinogrl_jax.interface.text import HEAD, content_words, wide_encoding

MOST_TEXT = 256 << 20  # bytes of a text file
MOST_JSON = 64 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # errors of writing alone
KINDS = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket"}


@contextlib.contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A name beside a path for what is renamed to it when the block ends without an error.

    Drafts that a process of this machine has left and that has ended are removed.

    Raises InputError for a path that ends in no name.
    """
    if not path.name:
        raise InputError(f"{path} is no name of a file: give one")
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]
    start = f".{path.name}.{machine}-"
    draft = path.with_name(f"{start}{os.getpid()}")
    for name in _names_beside(path, start):
        if name == draft.name or not _is_alive(name.removeprefix(start)):
            _remove(path.with_name(name))
    try:
        yield draft
        draft.replace(path)
    finally:
        _remove(draft)


@contextlib.contextmanager
def _errors_of_writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name, reason = error.filename, error.strerror or error
        if not isinstance(name, str) or _is_written(Path(name).absolute(), path.absolute()):
            raise InputError(f"{path}: cannot be written ({reason})") from error
        done = "written" if error.errno in FULL else "read"
        raise InputError(f"{name}: cannot be {done} ({reason})") from error


def _is_written(other: Path, path: Path) -> bool:
    """Whether a file is `path`, its draft, within one of them, or a folder above."""
    if path.is_relative_to(other):
        return True
    if not other.is_relative_to(path.parent):
        return False
    first = other.relative_to(path.parent).parts[0]
    return first == path.name or first.startswith(f".{path.name}.")


def _names_beside(path: Path, start: str) -> list[str]:
    try:
        return [name for name in os.listdir(path.parent) if name.startswith(start)]
    except OSError:  # there is no such folder: whoever writes there will say so
        return []


def _is_alive(process: str) -> bool:
    """Whether there is a process of that number, or its text is no number."""
    if not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _remove(draft: Path) -> None:
    """Remove a draft; of a link the link itself."""
    with contextlib.suppress(OSError):  # it is renamed, or a folder
        draft.unlink()
    shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which appears at `path` when the block ends without an error.

    Its content reaches the disk before its name does: otherwise a power failure could leave an
    empty file of that name. A link that somebody put in the place of the draft is not followed.

    Raises InputError if the file cannot be written.
    """
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _errors_of_writing(path), draft_of(path) as draft:
        if path.exists() and not path.is_file() and not path.is_symlink():
            raise InputError(f"{path} is no file that can be replaced: choose another")
        with os.fdopen(os.open(draft, new, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


def open_file(path: str | Path) -> BinaryIO:
    """A file to read; OSError if it cannot be opened.

    Raises InputError for a FIFO, a device or a socket, for which a reader could wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((words for test, words in KINDS.items() if test(mode)), "a device")
    raise InputError(f"{path} is {kind}, not a file")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a file; InputError if it cannot be read or has more than `most` bytes."""
    try:
        with open_file(path) as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a file"
        raise InputError(f"{path} cannot be read: {reason}") from error
    if len(content) > most:
        raise InputError(f"{path} is larger than {most >> 20} MiB, which no such file is")
    return content


def file_words(path: str | Path) -> str:
    """What a file is by its first bytes, and what to do; empty if it is no file or unknown."""
    try:
        with open_file(path) as file:
            return content_words(file.read(HEAD))
    except (OSError, ValueError, InputError):
        return ""


def read_text(path: str | Path, most: int = MOST_TEXT, errors: str = "strict") -> str:
    """The content of a text file in UTF-8; InputError says what else it is."""
    content = read_bytes(path, most)
    if encoding := wide_encoding(content[:HEAD]):
        raise InputError(f"{path} is {encoding}: save it as UTF-8")
    try:
        return content.decode("utf-8-sig", errors)
    except ValueError as error:
        words = content_words(content[:HEAD]) or "no text in UTF-8: save it as UTF-8"
        raise InputError(f"{path} is {words}") from error


def read_json(path: str | Path, shape: Shape = object, most: int = MOST_JSON) -> Any:
    """The content of a JSON file; InputError if it cannot be read or has not that shape."""
    text = read_text(path, most)
    with errors_naming(f"{path} cannot be read as JSON"):
        return json_value(text, shape)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all; InputError if it cannot be written."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write to, which appears at `path` when the block ends without an error.

    Raises InputError if a file or a folder with content is there, or nothing can be written.
    """
    place = Path(path).absolute()
    free = place.is_dir() and not any(place.iterdir())
    if place.is_symlink() or (place.exists() and not free):
        raise InputError(f"{path} exists: choose another --out")
    with _errors_of_writing(place), draft_of(place) as draft:
        draft.mkdir(parents=True)
        yield draft

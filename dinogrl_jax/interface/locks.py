"""A folder that one process writes to at a time."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from dinogrl_jax.interface.errors import InputError

NAME = ".lock"  # of the file in the folder, while it is held
PAUSE = 0.05  # seconds between two looks at a folder that another process holds
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # file systems


class InUse(InputError):
    """Another process holds the folder."""


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be; it ends with the process, however that ends.

    Folders that were made and are still empty behind an error are removed again.

    Raises InUse where another process holds it, naming that.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _locked_file(folder)
    try:
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)
        os.close(file)
        with contextlib.suppress(OSError):  # there is something in one
            for path in new:
                path.rmdir()


def _locked_file(folder: Path) -> int:
    """The descriptor of the file that is locked, and is the one of that name."""
    path = folder / NAME
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise _refusal(folder, file) from error
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file).st_ino:
                break
        os.close(file)  # another process has removed it meanwhile
    os.truncate(file, 0)
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {began}".encode())
    return file


@contextlib.contextmanager
def lock_in_turn(folder: Path, seconds: float) -> Iterator[None]:
    """The same; a process that comes second waits for the first, so long at most."""
    end, block = time.monotonic() + seconds, contextlib.ExitStack()
    while True:
        try:
            block.enter_context(lock(folder))
            break
        except InUse:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE)
    with block:
        yield


def _refusal(folder: Path, file: int) -> InUse:
    with os.fdopen(file, errors="replace") as content:
        holder = content.read(200)
    who = holder if holder.isprintable() and holder else "another process"
    return InUse(f"{folder} is in use by {who}: wait for it, or choose another folder")

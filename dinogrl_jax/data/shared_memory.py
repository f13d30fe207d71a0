"""Files in memory by which frames travel between processes, which both map: nothing is copied.

Once the training process has dropped a batch, the next is written into the same file: new pages of
memory cost a third as much as all else that makes a frame. grain's own shared memory costs half as
much again as making the batch, and complains about batches that are alive at exit.
"""

import contextlib
import fcntl
import logging
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dinogrl_jax.interface.errors import InputError

MEMORY = "/dev/shm"
PREFIX = "dinogrl_"  # begins the names of folders
OWNER = ".owner"  # a file that the process which made the folder locks as long as it lives
FREE = ".free"  # ends the names of files that no batch uses
# All pages at once, where the system can: one by one they cost an eighth of making a batch.
MAPPED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)

logger = logging.getLogger(__name__)


class SharedFolder:
    """A folder that is removed by `cleanup`, or with this object; batches in use stay whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            owner = _locked_owner(path)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.cleanup = weakref.finalize(self, _remove, path, owner)


def shared_folder(files: int, size: int) -> SharedFolder:
    """A folder of free files of `size` bytes each, in memory if they fit, else on disk.

    Their space is reserved: a container has 64 MiB of such memory, and two runs share it. What
    killed processes have left there is removed first.

    Raises InputError where neither has room.
    """
    for place in _places():
        _remove_left_over(place)
        try:
            folder = SharedFolder(Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)))
        except OSError:
            continue
        if not _are_reserved([folder.path / f"{n}{FREE}" for n in range(files)], size):
            folder.cleanup()
            continue
        if place != MEMORY:
            total = _mib(files * size)
            logger.warning("%s has no room for %s: frames travel over %s", MEMORY, total, place)
        return folder
    raise InputError(
        f"{files} batches of {_mib(size)} on their way from data.workers fit neither into {MEMORY} "
        "nor into the folder of temporary files: lower data.workers, or set TMPDIR to a folder "
        "with room"
    )


def _are_reserved(paths: Sequence[Path], size: int) -> bool:
    try:
        for path in paths:
            with open(path, "wb") as file:
                _reserve(file.fileno(), size)
    except OSError:
        return False
    return True


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _places() -> Iterator[str]:
    if os.path.isdir(MEMORY):
        yield MEMORY
    with contextlib.suppress(OSError):  # there is no folder for temporary files
        yield tempfile.gettempdir()


def _locked_owner(folder: Path) -> int:
    """The descriptor of the folder's file of that name, which nobody sees before it is locked."""
    draft = folder / f"{OWNER}.draft"
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    draft.rename(folder / OWNER)
    return file


def _remove(folder: Path, file: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(file)


def _remove_left_over(place: str) -> None:
    """Remove folders whose makers have been killed, with all their workers at once."""
    for folder in Path(place).glob(f"{PREFIX}*"):
        try:
            file = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # somebody else's, or not such a folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it lives
            pass
        finally:
            os.close(file)


def _reserve(file: int, size: int) -> None:
    """Give a file its space; OSError where there is none, instead of a signal on its use."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.truncate(file, size)


# In a worker


def writable_frames(folder: str, name: str, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
    """A file's path and its memory as float32, for a batch of that name."""
    path, size = os.path.join(folder, name), 4 * int(np.prod(shape))
    with open(path, "r+b" if _claim(folder, path) else "w+b") as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise InputError(f"{folder} has no room for another batch: drop some") from error
        memory = mmap.mmap(file.fileno(), size, flags=MAPPED)
    return path, np.frombuffer(memory, np.float32).reshape(shape)


def _claim(folder: str, path: str) -> bool:
    """Give `path` to a file that no batch uses; False if there is none."""
    for name in os.listdir(folder):
        if name.endswith(FREE):
            try:
                os.rename(os.path.join(folder, name), path)
                return True
            except FileNotFoundError:  # another worker was faster
                continue
    return False


# In the training process


def received_frames(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The memory that a worker has written; the file is free once nothing refers to it."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    weakref.finalize(memory, _release, path).atexit = False
    return np.frombuffer(memory, np.float32).reshape(shape)


def _release(path: str) -> None:
    with contextlib.suppress(OSError):  # the folder is gone with its iterator
        os.rename(path, path + FREE)

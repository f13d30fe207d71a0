"""The files of a gallery beside its database: descriptors row by row, and what bounds read.

Both only grow. Rows behind the committed ones are leftovers, which the next add overwrites. Blocks
are mapped one at a time, so that memory holds one of them, whatever the size of the gallery.
"""

import contextlib
import errno
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt16

from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.retrieval.store.bounds import stored_rows
from dinogrl_jax.retrieval.store.database import Stored

DESCRIPTORS, BOUNDS = "descriptors.bin", "bounds.bin"
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.dtype(jnp.bfloat16)}
COLUMNS = 4096  # descriptors in a block of bounds; so blocks begin at pages
BYTES = 2  # of a number that bounds read
PAGE = mmap.ALLOCATIONGRANULARITY
POPULATED = getattr(mmap, "MAP_POPULATE", 0)  # Linux: all pages at once, not one by one


def row_dtype(dtype: str) -> np.dtype:
    """The NumPy type of stored descriptors; InputError for an unknown name."""
    return np.dtype(lookup(DTYPES, dtype, "dtype"))


class DescriptorFile:
    """The descriptors of what is committed."""

    def __init__(self, folder: Path, at: Stored) -> None:
        facts = at.facts
        self.path, self.count = folder / DESCRIPTORS, at.count
        self.shape, self.dtype = (facts.parts, facts.channels), row_dtype(facts.dtype)
        self.row = facts.parts * facts.channels * self.dtype.itemsize

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """The file's descriptor; InputError where it has lost rows."""
        with opened(self.path, os.O_RDONLY, self.count * self.row) as file:
            yield file

    def rows(
        self, file: int, places: Sequence[int] | Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n p d"]:
        """Descriptors as they are stored."""
        found = aligned((len(places), *self.shape), self.dtype)
        for row, place in zip(found, places, strict=True):
            if os.preadv(file, [row.view(np.uint8)], int(place) * self.row) != self.row:
                raise InputError(f"{self.path} is too short: restore it")
        return found

    def block(self, file: int, start: int, stop: int) -> Float[np.ndarray, "n p d"]:
        """The descriptors from one place to another, of which no copy is made."""
        first = start * self.row // PAGE * PAGE
        content = mapped(file, first, stop * self.row - first)
        found = np.frombuffer(content, self.dtype, offset=start * self.row - first)
        return found.reshape(-1, *self.shape)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins where XLA wants one, so that a CPU needs no copy."""
    memory = np.empty(math.prod(shape) * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : len(memory) - 64 + start].view(dtype).reshape(shape)


def mapped(file: int, start: int, size: int) -> mmap.mmap:
    """A part of a file as memory, until the last array that uses it is gone."""
    flags = mmap.MAP_SHARED | POPULATED
    return mmap.mmap(file, size, flags, mmap.PROT_READ, offset=start)


@contextlib.contextmanager
def opened(path: Path, how: int, least: int) -> Iterator[int]:
    """A file's descriptor; InputError where it cannot be opened or has fewer bytes than it must."""
    try:
        file = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        if os.fstat(file).st_size < least:
            raise InputError(f"{path} has lost its end, {least} bytes have to be there: restore it")
        yield file
    finally:
        os.close(file)


def block_shape(at: Stored) -> tuple[int, int, int]:
    """Of a block of bounds: parts, rows, descriptors."""
    return at.facts.parts, at.directions.rows, COLUMNS


def block_count(at: Stored) -> int:
    return -(-at.count // COLUMNS)


def blocks_size(at: Stored) -> int:
    """Bytes of all blocks of bounds."""
    return BYTES * math.prod(block_shape(at)) * block_count(at)


def bound_block(
    file: int, at: Stored, number: int
) -> tuple[slice, UInt16[np.ndarray, "p rows columns"]]:
    """The places of a block and what is stored of them; columns behind the last are anything."""
    shape = block_shape(at)
    size = BYTES * math.prod(shape)
    places = slice(number * COLUMNS, min((number + 1) * COLUMNS, at.count))
    return places, np.frombuffer(mapped(file, number * size, size), np.uint16).reshape(shape)


def write_descriptors(folder: Path, at: Stored, rows: Float[np.ndarray, "n p d"]) -> None:
    """Write rows behind the committed ones and wait until the disk has them."""
    stored = DescriptorFile(folder, at)
    how = os.O_RDWR | os.O_CREAT
    with _errors_of_writing(stored.path), opened(stored.path, how, at.count * stored.row) as file:
        os.ftruncate(file, at.count * stored.row)
        _write(file, rows, at.count * stored.row)
        os.fsync(file)
        _synchronise(folder)


def write_bounds(
    folder: Path, at: Stored, first: int, pieces: Iterator[Float[np.ndarray, "n p d"]]
) -> None:
    """Write what bounds read of descriptors at places from `first` on, and wait for the disk.

    pieces: the descriptors, some at a time. at: with the directions, and all that will be there.
    """
    shape, path = block_shape(at), folder / BOUNDS
    with _errors_of_writing(path), opened(path, os.O_RDWR | os.O_CREAT, 0) as file:
        # room first: a mapped file that cannot grow would end the process
        os.posix_fallocate(file, 0, blocks_size(at))
        for piece in pieces:
            _write_columns(file, shape, first, stored_rows(at.directions, piece))
            first += len(piece)
        os.fsync(file)


def _write_columns(
    file: int, shape: tuple[int, int, int], first: int, columns: UInt16[np.ndarray, "p rows n"]
) -> None:
    size, start, end = BYTES * math.prod(shape), first, first + columns.shape[2]
    while start < end:
        number = start // COLUMNS
        stop = min(end, (number + 1) * COLUMNS)
        with mmap.mmap(file, size, offset=number * size) as content:
            block = np.frombuffer(content, np.uint16).reshape(shape)
            inside = slice(start - number * COLUMNS, stop - number * COLUMNS)
            block[:, :, inside] = columns[:, :, start - first : stop - first]
            del block  # before the memory is
            content.flush()
        start = stop


def _synchronise(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write(file: int, rows: np.ndarray, offset: int) -> None:
    view = memoryview(np.ascontiguousarray(rows).view(np.uint8).reshape(-1))
    while view:
        done = os.pwrite(file, view[: 1 << 30], offset)
        view, offset = view[done:], offset + done


@contextlib.contextmanager
def _errors_of_writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        text = f"{path}: cannot be written ({reason}): nothing was added"
        raise InputError(text) from error

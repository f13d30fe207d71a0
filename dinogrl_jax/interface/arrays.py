"""Arrays of an .npz from outside: each is looked at before it is read, and read within limits."""

import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import open_file
from dinogrl_jax.interface.text import content_words, printable

NUMBERS, TEXT = "iufb", "US"  # NumPy's kinds of types
MOST_ROWS = 100_000_000
# An array that is compressed more than this holds nothing, but was made to fill memory.
MOST_COMPRESSED, UNSUSPICIOUS = 200, 256 << 20  # times, and bytes up to which nobody asks


class Wanted(NamedTuple):
    """What an array has to be."""

    kinds: str
    needed: bool = False
    longest: int = 0  # letters of a text


def read_arrays(path: str, wanted: Mapping[str, Wanted]) -> dict[str, np.ndarray]:
    """The wanted arrays of an .npz that it has; no other is read, and nothing is unpickled.

    Raises InputError, without the name of the file, for what cannot be read, is damaged, of another
    kind or would take more memory than is believable, and where a wanted array that is needed is
    not there.
    """
    if os.path.isdir(path):
        raise InputError("is a folder, not an .npz of features")
    head = b""
    try:
        with open_file(path) as file:
            head = file.read(512)
            if head.startswith(b"\x93NUMPY"):
                raise InputError("holds one array without a name: save it with np.savez")
            with zipfile.ZipFile(file) as archive:
                return dict(_read_wanted(archive, wanted))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile raises half a dozen types for a damaged file
        words = content_words(head)
        reason = "it is no .npz" + (f" but {words}" if words and "archive" not in words else "")
        raise InputError(f"cannot be read ({reason})") from error


def _read_wanted(
    archive: zipfile.ZipFile, wanted: Mapping[str, Wanted]
) -> Iterator[tuple[str, np.ndarray]]:
    """The names and the wanted arrays of an archive, each once."""
    needed = {name for name, array in wanted.items() if array.needed}
    members = [(info.filename.removesuffix(".npy"), info) for info in archive.infolist()]
    known = [(name, info) for name, info in members if name in wanted]
    if len({name for name, _ in known}) < len(known):
        raise InputError("holds an array twice")
    if missing := needed - {name for name, _ in known}:
        there = ", ".join(printable(name)[:40] for name, _ in members[:20])
        raise InputError(f"has no array {min(missing)!r}; there is {there}")
    for name, info in known:
        try:
            with archive.open(info) as file:
                yield name, _read_array(file, name, wanted[name], info)
        except InputError:
            raise
        except Exception as error:  # zlib, zipfile and numpy raise a dozen types
            reason = str(error).partition("\n")[0][:120] or type(error).__name__
            raise InputError(f"{name} is damaged ({reason})") from error


class _Header(NamedTuple):
    """What an array says of itself before its values."""

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_array(file, name: str, wanted: Wanted, info: zipfile.ZipInfo) -> np.ndarray:
    """An array of the archive; memory is made for it once its header was found right."""
    begun = io.BytesIO(file.read(1 << 16))
    header = _read_header(begun)
    _check_header(header, name, wanted, info)
    if begun.tell() + header.nbytes != info.file_size:
        raise ValueError("its size is not what it says")
    content, first = bytearray(header.nbytes), begun.read()
    content[: len(first)] = first
    at, view = len(first), memoryview(content)
    while at < header.nbytes:
        if not (count := file.readinto(view[at:])):
            raise EOFError("it ends early")
        at += count
    if file.read(1):  # at the end the checksum is compared
        raise ValueError("it is longer than it says")
    array = np.frombuffer(content, header.dtype)
    shape = header.shape
    return array.reshape(shape[::-1]).T if header.columns_first else array.reshape(shape)


def _read_header(begun: io.BytesIO) -> _Header:
    if np.lib.format.read_magic(begun) == (1, 0):
        return _Header(*np.lib.format.read_array_header_1_0(begun))
    return _Header(*np.lib.format.read_array_header_2_0(begun))


def _check_header(header: _Header, name: str, wanted: Wanted, info: zipfile.ZipInfo) -> None:
    """Raise InputError for an array of another kind, or one that would fill the memory."""
    shape, kind = header.shape, header.dtype.kind
    if kind == "O":
        raise InputError(
            f"{name} holds Python objects, as rows of different widths or mixed types make them; "
            "save numbers or text of one shape"
        )
    if kind not in wanted.kinds and header.nbytes:
        what = "numbers" if wanted.kinds == NUMBERS else "text"
        raise InputError(f"{name} is {header.dtype}: save {what}")
    longest = wanted.longest
    if kind in TEXT and header.dtype.itemsize > longest * (4 if kind == "U" else 1):
        raise InputError(f"{name} has texts of more than {longest} letters")
    if len(shape) > 3 or (shape and shape[0] > MOST_ROWS):
        raise InputError(f"{name} has shape {shape}, which is no list of tracklets")
    if header.nbytes > max(UNSUSPICIOUS, MOST_COMPRESSED * info.compress_size):
        size = f"{header.nbytes / 2**30:.1f} GiB of {info.compress_size} bytes"
        raise InputError(f"{name} would take {size}: save it without so many equal values")

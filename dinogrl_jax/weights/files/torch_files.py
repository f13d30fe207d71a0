"""State dicts of PyTorch files, read and written without PyTorch.

A file is taken to be hostile: its pickle can only describe tensors (`torch_pickle`), which are
looked at only when they are asked for. `spellings.read` finds a certain model in a file.
"""

import math
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.weights import foreign
from dinogrl_jax.weights.files import folders
from dinogrl_jax.weights.files.safetensors_files import opened_safetensors
from dinogrl_jax.weights.files.state_dicts import MOST_TENSORS, single_state_dict
from dinogrl_jax.weights.files.torch_archive import MAGIC, opened_archive, opened_legacy
from dinogrl_jax.weights.files.torch_types import TYPES, Content, Type, printable

PREFIXES = re.compile(r"(?:(?:module|_orig_mod)\.)*")  # DistributedDataParallel, torch.compile
LEGACY = MAGIC.to_bytes(10, "little")  # within the first 32 bytes


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .pth, .pt or .tar of PyTorch or of a .safetensors, by key, in their order.

    A folder stands for the file of weights in it, an index for its shards (`folders`).

    The state dict is the outermost dictionary or, as long as that holds no tensor but single
    numbers, its only entry among WRAPPERS; whatever stands beside the tensors is left out. Prefixes
    that all keys share are removed if they are PREFIXES. The arrays are read-only views into the
    mapped file, with the strides that PyTorch saved, so a file of any size costs no memory until
    they are used.

    Raises InputError for any other file: its name, the key and the reason.
    """
    with errors_naming(path):
        content = opened(Path(path))
        state = arrays(content, single_state_dict(content.tree))
        if not state:
            raise InputError("holds no tensors")
    start = PREFIXES.match(os.path.commonprefix(list(state))).end()
    return {key[start:]: array for key, array in state.items()}


def opened(path: Path) -> Content:
    """What a file holds, or what the shards of an index hold together.

    Raises InputError for a file that is no weights or is damaged; its name is not in the message.
    """
    try:
        if path.is_dir():
            folder, path = path, folders.weights_in_folder(path)
            if path is None:
                wanted = ", ".join(folders.NAMES)
                raise InputError(f"is a folder, not a file, and has none of {wanted}")
            with errors_naming(path.relative_to(folder)):
                return opened(path)
        if not path.is_file():
            raise InputError("is no file" if path.exists() else "no such file")
        if path.name.endswith(folders.INDEX):
            return _opened_shards(path)
        return _opened_file(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _opened_file(path: Path) -> Content:
    if not path.stat().st_size:
        raise InputError("is empty")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    head = data[:4096].tobytes()
    if head.startswith(b"PK\x03\x04"):
        return opened_archive(path, data)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= data.size - 8:
        return opened_safetensors(path, data)
    if LEGACY in head[:32]:
        return opened_legacy(data)
    neither = "is neither PyTorch's format nor safetensors (foreign or truncated)"
    raise InputError(foreign.format_of(head) or neither)


def _opened_shards(index: Path) -> Content:
    state: dict[str, np.ndarray] = {}
    size = 0
    for name, keys in folders.shards_of_index(index).items():
        with errors_naming(printable(name)):
            content = _opened_file(index.parent / name)
            shard = arrays(content, single_state_dict(content.tree))
            if absent := [key for key in keys if key not in shard]:
                raise InputError(f"lacks {printable(absent[0])}, which the index promises")
            if twice := shard.keys() & state.keys():
                raise InputError(f"has {printable(min(twice))}, as another file has")
        state |= shard
        size += content.size
    return Content(state, lambda array: array, size)


def arrays(content: Content, tensors: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The arrays of some of a file's tensors; InputError names one that is damaged."""
    if len(tensors) > MOST_TENSORS:
        raise InputError(f"holds {len(tensors):,} tensors, more than {MOST_TENSORS:,}")
    found = {}
    for key, tensor in tensors.items():
        with errors_naming(printable(key)):
            found[key] = content.array(tensor)
    return found


def write(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a file that `torch.load(path, weights_only=True)` reads as an OrderedDict of tensors.

    The file appears when it is complete; one array at a time is made contiguous.

    Raises InputError where an array has a type that PyTorch lacks, or the file cannot be written.
    """
    path = Path(path)
    kinds = {kind.numpy: kind for kind in TYPES}
    tensors = {}
    for key, array in state.items():
        kind = kinds.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise InputError(f"{path}: {printable(key)}: PyTorch has no type {array.dtype}")
        tensors[key] = kind, tuple(array.shape)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        _write_record(archive, file, "data.pkl", _pickled_state(tensors))
        _write_record(archive, file, "byteorder", b"little")
        for index, (key, array) in enumerate(state.items()):
            flat = np.ascontiguousarray(array, tensors[key][0].numpy).reshape(-1)
            _write_record(archive, file, f"data/{index}", flat.view(np.uint8))
        _write_record(archive, file, "version", b"3\n")


def _write_record(archive: zipfile.ZipFile, file: BinaryIO, name: str, payload) -> None:
    entry = zipfile.ZipInfo(f"archive/{name}")
    start = file.tell() + 30 + len(entry.filename) + 20 + 4  # headers: entry, zip64, the padding's
    padding = -start % 64  # PyTorch maps storages, so they have to be aligned
    entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    with archive.open(entry, "w", force_zip64=True) as record:
        record.write(payload)


def _pickled_state(tensors: dict[str, tuple[Type, tuple[int, ...]]]) -> bytes:
    """The pickle of an OrderedDict of contiguous tensors; the n-th one has storage n to itself."""
    items = b"".join(
        _pickled(key) + _pickled_tensor(str(index), *tensor)
        for index, (key, tensor) in enumerate(tensors.items())
    )
    return pickle.PROTO + b"\x02" + ORDERED_DICT + b"(" + items + pickle.SETITEMS + pickle.STOP


def _pickled_tensor(name: str, kind: Type, shape: tuple[int, ...]) -> bytes:
    bytes_or_entries = math.prod(shape) * (1 if kind.storage else kind.numpy.itemsize)
    owner = ("torch", kind.storage) if kind.storage else ("torch.storage", "UntypedStorage")
    storage = _pickled(("storage", _pickled_global(*owner), name, "cpu", bytes_or_entries))
    strides = tuple(math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape)))
    arguments = (storage + pickle.BINPERSID, 0, shape, strides, False, ORDERED_DICT)
    if not kind.storage:
        arguments = (*arguments, _pickled_global("torch", kind.torch))
    function = f"_rebuild_tensor_v{2 if kind.storage else 3}"
    return _pickled_global("torch._utils", function) + _pickled(arguments) + pickle.REDUCE


def _pickled(value: object) -> bytes:
    match value:
        case bytes():  # pickled already
            return value
        case bool():
            return pickle.NEWTRUE if value else pickle.NEWFALSE
        case int():
            return pickle.LONG1 + b"\x08" + value.to_bytes(8, "little", signed=True)
        case str():
            text = value.encode("utf-8", "surrogatepass")
            return pickle.BINUNICODE + len(text).to_bytes(4, "little") + text
        case tuple():
            return pickle.MARK + b"".join(map(_pickled, value)) + pickle.TUPLE
    raise TypeError(type(value))


def _pickled_global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


ORDERED_DICT = _pickled_global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE

"""State dicts of PyTorch files, read and written without PyTorch.

A file is taken to be hostile: the records of its archive must lie inside it, uncompressed and
apart; its pickle can only describe tensors (`torch_pickle`); a description is checked against its
storage before it becomes an array. Nothing but the tensors of the state dict is looked at.
"""

import json
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.weights import torch_pickle
from dinogrl_jax.weights.torch_pickle import ONLY_TENSORS, TYPES, Storage, Tensor, printable

WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
LARGEST_HEADER = 1 << 24  # bytes; the pickle of a model of 1,000 tensors has 2e5
LARGEST_EXPANDED = 1 << 26  # bytes of a tensor where the whole file has fewer (torch.expand)
LEGACY = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # within the first 32 bytes
AGAIN = "save it again: torch.save(torch.load(f, weights_only=True), f)"

Record = tuple[np.ndarray, int]  # its bytes, and their checksum; 0: torch was told to compute none


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a zip-format .pth, .pt, .tar or of a .safetensors, by key, in their order.

    The state dict is the outermost dictionary or, as long as that holds no tensor, its only entry
    among WRAPPERS; whatever stands beside the tensors is left out. A prefix that all keys share is
    removed if it is one of PREFIXES. The arrays are read-only views into the mapped file, with the
    strides that PyTorch saved, so a file of any size costs no memory until they are used.

    Raises InputError for any other file: its name, the key and the reason.
    """
    path = Path(path)
    with errors_naming(path):
        data = _mapped_bytes(path)
        state = (_archive_state if _file_format(data) == "zip" else _safetensors_state)(path, data)
        if not state:
            raise InputError("holds no tensors")
    return _without_prefix(state)


def _mapped_bytes(path: Path) -> np.ndarray:
    try:
        if not path.is_file():
            raise InputError("is a folder, not a file" if path.is_dir() else "no such file")
        if not path.stat().st_size:
            raise InputError("is empty")
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _file_format(data: np.ndarray) -> str:
    head = data[:512].tobytes()
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= data.size - 8:
        return "safetensors"
    if LEGACY in head[:32]:
        raise InputError(f"is in PyTorch's format before 1.6; {AGAIN}")
    if head[257:262] == b"ustar":
        raise InputError(f"is a tar archive; unpack it or, if PyTorch wrote it, {AGAIN}")
    raise InputError("is neither PyTorch's zip format nor safetensors (foreign or truncated)")


def _without_prefix(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefix({key.removeprefix(prefix): state[key] for key in state})
    return state


def _archive_state(path: Path, data: np.ndarray) -> dict[str, np.ndarray]:
    records = _records(path, data)
    if "byteorder" in records and _checked_bytes(records, "byteorder").tobytes() != b"little":
        raise InputError("is not little-endian; save it again on an x86 or ARM machine")
    description = _checked_bytes(records, "data.pkl")
    if description.size > LARGEST_HEADER:
        raise InputError(f"data.pkl has {description.size} bytes; {ONLY_TENSORS}")
    largest = max(data.size, LARGEST_EXPANDED)
    state = {}
    for key, tensor in _state_dict(torch_pickle.loads(description.tobytes())).items():
        with errors_naming(printable(key)):
            state[key] = _tensor_array(tensor, records, largest)
    return state


def _records(path: Path, data: np.ndarray) -> dict[str, Record]:
    """The records by their names inside the archive's folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    except Exception as error:  # zipfile answers damage with exceptions of many kinds
        raise InputError("is a truncated or damaged zip archive") from error
    folder = _archive_folder([entry.filename for entry in entries])
    records = {}
    for entry, end in zip(entries, ends, strict=True):
        with errors_naming(printable(f"record {entry.filename}")):
            record = _record(entry, data, end)
        if entry.filename.startswith(folder):
            records[entry.filename.removeprefix(folder)] = record
    return records


def _archive_folder(names: list[str]) -> str:
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("is a zip archive that torch.save did not write (it has no data.pkl)")
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith((f"{folder}constants.pkl", f"{folder}code/")) for name in names):
        raise InputError("is TorchScript; torch.save(torch.jit.load(f).state_dict(), f) helps")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"record {printable(twice[0])}: is there twice")
    return folder


def _record(entry: zipfile.ZipInfo, data: np.ndarray, end: int) -> Record:
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise InputError("is compressed or encrypted, which PyTorch never does; unpack the file")
    header = data[max(entry.header_offset, 0) :][:30].tobytes()
    if entry.header_offset < 0 or len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise InputError("has no header where the archive says")
    start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))
    if start + entry.file_size > end or entry.compress_size != entry.file_size:
        raise InputError(f"declares {entry.file_size} bytes, the file has {max(end - start, 0)}")
    return data[start : start + entry.file_size], entry.CRC


def _checked_bytes(records: dict[str, Record], name: str) -> np.ndarray:
    if name not in records:
        raise InputError(f"has no record {printable(name)}")
    data, crc = records[name]
    if crc and zlib.crc32(data) != crc:
        raise InputError(f"record {printable(name)} is damaged: its checksum differs")
    records[name] = data, 0  # tensors may share a storage; once is enough
    return data


def _state_dict(value: object) -> dict[str, Tensor]:
    for _ in range(8):  # a dictionary can hold itself
        if not isinstance(value, dict):
            break
        tensors = {key: item for key, item in value.items() if isinstance(item, Tensor)}
        if tensors:
            for key, item in value.items():
                inside = item.values() if isinstance(item, dict) else ()
                nested = any(isinstance(x, Tensor) for x in inside)
                if nested or (key in tensors and not isinstance(key, str)):
                    raise InputError(f"{printable(key)}: is nested or no name; {ONLY_TENSORS}")
            return tensors
        inner = [name for name in WRAPPERS if isinstance(value.get(name), dict)]
        if len(inner) != 1:
            found = ", ".join(printable(key) for key in list(value)[:8])
            raise InputError(f"holds no state dict, or several, among: {found}; {ONLY_TENSORS}")
        value = value[inner[0]]
    raise InputError(f"holds no dictionary of tensors; {ONLY_TENSORS}")


def _tensor_array(tensor: Tensor, records: dict[str, Record], largest: int) -> np.ndarray:
    raw = _storage_bytes(tensor.storage, records)
    dtype = tensor.storage.dtype if tensor.dtype is None else tensor.dtype
    size, stride, offset = tensor.size, tensor.stride, tensor.offset
    if not isinstance(dtype, np.dtype) or not all(map(_are_counts, (size, stride, (offset,)))):
        raise InputError("has a type, size, stride or offset that cannot be")
    if len(size) != len(stride):
        raise InputError(f"has {len(size)} axes and {len(stride)} strides")
    if tensor.flags not in (None, {}):
        raise InputError("is a conjugated or negated view; save resolve_conj().resolve_neg()")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * dtype.itemsize > raw.size:
        raise InputError(f"needs {(last + 1) * dtype.itemsize} bytes, its storage has {raw.size}")
    if math.prod(max(n, 1) for n in size) * dtype.itemsize > largest:
        raise InputError(f"is expanded to the shape {size}; save tensor.contiguous()")
    if 0 in size:
        return np.zeros(size, dtype)
    steps = [step * dtype.itemsize for step in stride]
    return np.ndarray(size, dtype, raw, offset * dtype.itemsize, steps)


def _storage_bytes(storage: object, records: dict[str, Record]) -> np.ndarray:
    if not isinstance(storage, Storage) or not isinstance(storage.dtype, np.dtype):
        raise InputError("has no storage that can be read")
    if not isinstance(storage.name, str) or not _are_counts((storage.count,)):
        raise InputError("has a storage without name or size")
    raw = _checked_bytes(records, f"data/{storage.name}")
    declared = storage.count * storage.dtype.itemsize
    if declared != raw.size:
        raise InputError(f"declares a storage of {declared} bytes, the file has {raw.size}")
    return raw


def _are_counts(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) > 32:
        return False
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _safetensors_state(path: Path, data: np.ndarray) -> dict[str, np.ndarray]:
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if start > LARGEST_HEADER:
        raise InputError(f"has a header of {start} bytes")
    try:
        with safetensors.safe_open(path, "numpy"):  # checks the header, but has no 8-bit floats
            header = json.loads(data[8:start].tobytes(), object_pairs_hook=_distinct_keys)
        header.pop("__metadata__", None)
        state = {}
        for key, entry in header.items():
            with errors_naming(printable(key)):
                state[key] = _tensor_slice(entry, data[start:])
        return state
    except InputError:
        raise
    except Exception as error:  # its own, and numpy's for shapes such as [0, 1 << 60, 1 << 60]
        raise InputError(f"is not a valid safetensors file ({printable(error)})") from error


def _distinct_keys(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise InputError("has a key twice in its header")
    return dict(pairs)


def _tensor_slice(entry: dict, payload: np.ndarray) -> np.ndarray:
    dtype = next((kind.numpy for kind in TYPES if kind.safetensors == entry["dtype"]), None)
    if dtype is None:
        raise InputError(f"has the type {printable(entry['dtype'])}, which numpy lacks")
    start, stop = entry["data_offsets"]
    return payload[start:stop].view(dtype).reshape(entry["shape"])


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
        _write_record(archive, file, "data.pkl", torch_pickle.dumps(tensors))
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

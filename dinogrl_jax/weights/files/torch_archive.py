"""PyTorch's formats: a zip archive of records or, before version 1.6, pickles and then storages.

The records of an archive must lie inside the file, uncompressed and apart. One of TorchScript has
code beside them, which is compressed and is not looked at.
"""

import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.weights.files import torch_pickle
from dinogrl_jax.weights.files.torch_script import ScriptUnpickler, module_tensors
from dinogrl_jax.weights.files.torch_types import (
    LARGEST_HEADER,
    ONLY_TENSORS,
    Content,
    Storage,
    described_content,
    printable,
)

WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar")

SCRIPT = ("constants.pkl", "code/")  # what only archives of TorchScript have
READ_OF_SCRIPT = ("data.pkl", "byteorder", "data/")
MAGIC = 0x1950A86A20F9469CFC6C  # of the format before 1.6

Record = tuple[np.ndarray, int]  # its bytes, and their checksum; 0: torch was told to compute none


def opened_archive(path: Path, data: np.ndarray) -> Content:
    """The content of an archive: its pickle, and its tensors as read-only views into the file.

    Of a TorchScript archive, as OpenAI published CLIP, it is the tensors of the module.

    Raises InputError for a file that torch.save and torch.jit.save did not write, or that is
    damaged.
    """
    records, is_script = _records(path, data)
    if "byteorder" in records and _checked_bytes(records, "byteorder").tobytes() != b"little":
        raise InputError("is not little-endian; save it again on an x86 or ARM machine")
    description = _checked_bytes(records, "data.pkl")
    if description.size > LARGEST_HEADER:
        raise InputError(f"data.pkl has {description.size} bytes; {ONLY_TENSORS}")

    def bytes_of(storage: Storage) -> np.ndarray:
        return _checked_bytes(records, f"data/{storage.name}")

    stream = torch_pickle.Stream(description.tobytes())
    if is_script:
        tree = module_tensors(torch_pickle.load(stream, ScriptUnpickler)[0])
    else:
        tree, _ = torch_pickle.load(stream)
    return described_content(tree, bytes_of, data.size)


def opened_legacy(data: np.ndarray) -> Content:
    """The content of a file that PyTorch wrote before 1.6, or without its zip format since.

    Raises InputError for a file that is damaged or not little-endian.
    """
    stream = torch_pickle.Stream(data[:LARGEST_HEADER].tobytes())
    for wanted in (MAGIC, 1001):
        if torch_pickle.load(stream)[0] != wanted:
            raise InputError("is in no format of PyTorch that is known")
    system, _ = torch_pickle.load(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError("is not little-endian; save it again on an x86 or ARM machine")
    tree, storages = torch_pickle.load(stream)
    names, _ = torch_pickle.load(stream)
    found = _legacy_storages(data, stream.tell(), names, storages)

    def bytes_of(storage: Storage) -> np.ndarray:
        if storage.name not in found:
            raise InputError(f"has no storage {printable(storage.name)}")
        return found[storage.name]

    return described_content(tree, bytes_of, data.size)


def _legacy_storages(
    data: np.ndarray, start: int, names: object, storages: dict[str, Storage]
) -> dict[str, np.ndarray]:
    """The bytes of the storages, which stand one behind the other, each behind its size."""
    found = {}
    for name in names if isinstance(names, list) else ():
        storage = storages.get(name) if type(name) is str else None
        if storage is None or not isinstance(storage.dtype, np.dtype) or name in found:
            raise InputError(f"has a storage {printable(name)} that no tensor has, or twice")
        count = int.from_bytes(data[start : start + 8].tobytes(), "little")
        start, end = start + 8, start + 8 + count * storage.dtype.itemsize
        if end > data.size:
            raise InputError(f"is truncated: it ends in the storage {printable(name)}")
        found[name], start = data[start:end], end
    return found


def _records(path: Path, data: np.ndarray) -> tuple[dict[str, Record], bool]:
    """The records by their names inside the archive's folder, and whether it is TorchScript."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    except Exception as error:  # zipfile answers damage with exceptions of many kinds
        raise InputError("is a truncated or damaged zip archive") from error
    names = [entry.filename for entry in entries]
    folder = _archive_folder(names)
    is_script = any(name.startswith(tuple(folder + x for x in SCRIPT)) for name in names)
    read = tuple(folder + x for x in READ_OF_SCRIPT) if is_script else ("",)
    records = {}
    for entry, end in zip(entries, ends, strict=True):
        if not entry.filename.startswith(read):
            continue
        with errors_naming(printable(f"record {entry.filename}")):
            record = _record(entry, data, end)
        if entry.filename.startswith(folder):
            records[entry.filename.removeprefix(folder)] = record
    return records, is_script


def _archive_folder(names: list[str]) -> str:
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(
            f"is a zip archive that torch.save did not write ({_without_pickle(names)})"
        )
    folder = pickles[0].removesuffix("data.pkl")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"record {printable(twice[0])}: is there twice")
    return folder


def _without_pickle(names: list[str]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "NumPy's npz; it has no data.pkl"
    inside = next((name for name in names if name.lower().endswith(WEIGHTS)), None)
    return f"unpack it: it holds {printable(inside)}" if inside else "it has no data.pkl"


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

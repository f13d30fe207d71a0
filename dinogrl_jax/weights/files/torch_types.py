"""What a PyTorch file consists of: kinds of numbers, storages, tensors; and their arrays.

A description is taken to be hostile: it is checked against its storage before it becomes an array.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dinogrl_jax.interface.errors import InputError

ONLY_TENSORS = "save the model's state_dict() alone"
LARGEST_HEADER = 1 << 24  # bytes; the pickle of a model of 1,000 tensors has 2e5
LARGEST_EXPANDED = 1 << 26  # bytes of a tensor where the whole file has fewer (torch.expand)


class Type(NamedTuple):
    """One kind of number under the names that its three owners give it."""

    torch: str
    numpy: np.dtype
    storage: str  # PyTorch's class of storages; "" where they are untyped
    safetensors: str  # "" where safetensors has none


TYPES = tuple(
    Type(torch, np.dtype(numpy), storage, safetensors)
    for torch, numpy, storage, safetensors in [
        ("float32", "<f4", "FloatStorage", "F32"),
        ("float64", "<f8", "DoubleStorage", "F64"),
        ("float16", "<f2", "HalfStorage", "F16"),
        ("bfloat16", ml_dtypes.bfloat16, "BFloat16Storage", "BF16"),
        ("int64", "<i8", "LongStorage", "I64"),
        ("int32", "<i4", "IntStorage", "I32"),
        ("int16", "<i2", "ShortStorage", "I16"),
        ("int8", "i1", "CharStorage", "I8"),
        ("uint8", "u1", "ByteStorage", "U8"),
        ("bool", "?", "BoolStorage", "BOOL"),
        ("complex64", "<c8", "ComplexFloatStorage", "C64"),
        ("complex128", "<c16", "ComplexDoubleStorage", ""),
        ("uint16", "<u2", "", "U16"),
        ("uint32", "<u4", "", "U32"),
        ("uint64", "<u8", "", "U64"),
        ("float8_e4m3fn", ml_dtypes.float8_e4m3fn, "", "F8_E4M3"),
        ("float8_e5m2", ml_dtypes.float8_e5m2, "", "F8_E5M2"),
        ("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, "", "F8_E4M3FNUZ"),
        ("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, "", "F8_E5M2FNUZ"),
        ("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, "", "F8_E8M0"),
    ]
)


class Nothing(NamedTuple):
    """What became of a class, a function or an object of the file: its name, no behaviour."""

    name: str


class Storage(NamedTuple):
    """A storage as the pickle declares it; no field has been checked."""

    dtype: np.dtype
    name: str
    count: int


class Tensor(NamedTuple):
    """A tensor as the pickle describes it; no field has been checked."""

    storage: Storage
    offset: int  # entries, like the strides
    size: tuple
    stride: tuple
    dtype: np.dtype | None  # None: that of the storage
    flags: dict | None  # conjugated or negated on reading


def printable(text: object) -> str:
    """A name from a file on one line: escaped, and short enough for a message."""
    return ascii(str(text))[1:-1][:120]


def foreign_name(nothing: Nothing) -> str:
    """What is wrong with a class or a function where a state dict has none."""
    return f"refers to {printable(nothing.name)}, which no state dict has"


class Content(NamedTuple):
    """What a file holds: dictionaries in each other, and the arrays of the tensors in them."""

    tree: object  # tensors are Tensor, or arrays already
    array: Callable[[Any], np.ndarray]  # of a tensor: a read-only view into the file; InputError
    size: int  # of the file, bytes


def described_content(
    tree: object, bytes_of: Callable[[Storage], np.ndarray], size: int
) -> Content:
    """The content of a file with this pickle; bytes_of: a storage with a name → all its bytes."""
    largest = max(size, LARGEST_EXPANDED)
    return Content(
        tree, lambda tensor: _array(tensor, _storage_bytes(tensor.storage, bytes_of), largest), size
    )


def _array(tensor: Tensor, raw: np.ndarray, largest: int) -> np.ndarray:
    dtype = tensor.storage.dtype if tensor.dtype is None else tensor.dtype
    size, stride, offset = tensor.size, tensor.stride, tensor.offset
    if isinstance(dtype, Nothing):
        raise InputError(foreign_name(dtype))
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


def _storage_bytes(storage: object, bytes_of: Callable[[Storage], np.ndarray]) -> np.ndarray:
    if isinstance(storage, Storage) and isinstance(storage.dtype, Nothing):
        raise InputError(f"has no storage that can be read: it {foreign_name(storage.dtype)}")
    if not isinstance(storage, Storage) or not isinstance(storage.dtype, np.dtype):
        raise InputError("has no storage that can be read")
    if not isinstance(storage.name, str) or not _are_counts((storage.count,)):
        raise InputError("has a storage without name or size")
    raw = bytes_of(storage)
    declared = storage.count * storage.dtype.itemsize
    if declared != raw.size:
        raise InputError(f"declares a storage of {declared} bytes, the file has {raw.size}")
    return raw


def _are_counts(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) > 32:
        return False
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)

"""The pickle inside a PyTorch file: descriptions of tensors in containers, and nothing else."""

import io
import math
import pickle
import types
from typing import NamedTuple

import ml_dtypes
import numpy as np

from dinogrl_jax.interface.errors import InputError

ONLY_TENSORS = "save the model's state_dict() alone"


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


def loads(data: bytes) -> object:
    """The pickled object, with Tensor for tensors and None for harmless values of other classes.

    Raises InputError for a global that is not in GLOBALS (by name) and for a damaged pickle.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle trips the interpreter in any way it likes
        raise InputError("data.pkl is damaged or is not a pickled state dict") from error


def _tensor(storage, offset, size, stride, _grad, _hooks, flags=None):
    return Tensor(storage, offset, size, stride, None, flags)


def _tensor_with_dtype(storage, offset, size, stride, _grad, _hooks, dtype, flags=None):
    return Tensor(storage, offset, size, stride, dtype, flags)


IGNORED = ["torch.Size", "torch.device", "collections.Counter", "_codecs.encode"]
for builtin in ("complex", "set", "frozenset", "bytearray", "slice"):
    IGNORED += [f"__builtin__.{builtin}", f"builtins.{builtin}"]
GLOBALS = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch.storage.UntypedStorage": np.dtype("u1"),
    **{f"torch.{kind.storage}": kind.numpy for kind in TYPES if kind.storage},
    **{f"torch.{kind.torch}": kind.numpy for kind in TYPES},
    **dict.fromkeys(IGNORED, lambda *_: None),
}
OPCODES = (
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL BINPERSID NONE NEWTRUE NEWFALSE BININT BININT1 "
    "BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT BINGET LONG_BINGET BINPUT "
    "LONG_BINPUT MEMOIZE"
)


class _Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists, tuples, plain values and what GLOBALS makes.

    The base is the interpreter in Python: its memo is a dictionary, where the C one allocates an
    array as long as the largest index that the file names. Opcodes that PyTorch does not write are
    missing, among them all that instantiate classes, look up extension codes, allocate what they
    are told to or hash what they are given.
    """

    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in (ord(getattr(pickle, name)) for name in OPCODES.split())
    }

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full not in GLOBALS:
            reason = f"refers to {printable(full)}, which no state dict has"
            raise InputError(f"{reason}; {ONLY_TENSORS}")
        return GLOBALS[full]

    def persistent_load(self, pid):
        _kind, dtype, name, _location, count = pid
        return Storage(dtype, name, count)

    def load_reduce(self):
        arguments = self.stack.pop()
        if not isinstance(self.stack[-1], types.FunctionType):  # only GLOBALS brings functions
            raise pickle.UnpicklingError("calls what is no function")
        self.stack[-1] = self.stack[-1](*arguments)

    def load_build(self):
        self.stack.pop()  # the version numbers that modules leave on their state dict

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def load_setitems(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key, value):
        # Hashing a tuple recurses without a limit, and a file can nest one deep enough to crash.
        if type(key) not in (str, int, float, bool, type(None)):
            raise InputError(f"has a dictionary whose keys are no names; {ONLY_TENSORS}")
        if key in self.stack[-1]:
            raise InputError(f"{printable(key)}: is there twice")
        self.stack[-1][key] = value

    dispatch[ord(pickle.REDUCE)] = load_reduce
    dispatch[ord(pickle.BUILD)] = load_build
    dispatch[ord(pickle.SETITEM)] = load_setitem
    dispatch[ord(pickle.SETITEMS)] = load_setitems


def dumps(tensors: dict[str, tuple[Type, tuple[int, ...]]]) -> bytes:
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

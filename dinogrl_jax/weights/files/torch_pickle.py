"""The pickle inside a PyTorch file: descriptions of tensors in containers, and nothing else.

Classes that stand beside the tensors (a configuration, numpy's scalars, dates) are never imported:
each becomes `Nothing`, and so does whatever is made of it.
"""

import _compat_pickle
import io
import pickle
import types

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files.torch_types import (
    ONLY_TENSORS,
    TYPES,
    Nothing,
    Storage,
    Tensor,
    foreign_name,
    printable,
)

MOST_READS = 2_000_000  # of pieces; a tensor takes about 50


class Stream(io.BytesIO):
    """Pickles that may be read in MOST_READS pieces: a list of one byte takes 56 in memory."""

    left = MOST_READS

    def read(self, *size):
        self.spend(1)
        return super().read(*size)

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise InputError(f"data.pkl holds too many objects; {ONLY_TENSORS}")


class _NoName:
    """The key under which a dictionary keeps what its file keeps under no name, as a list."""


NO_NAME = _NoName()


def load(
    stream: Stream, unpickler: "type[Unpickler] | None" = None
) -> tuple[object, dict[str, Storage]]:
    """The next pickled object of a stream, and the storages of its tensors by name.

    It has Tensor for tensors and Nothing for whatever is of other classes.

    Raises InputError for a function that does something (by name) and for a damaged pickle.
    """
    try:
        reader = (unpickler or Unpickler)(stream)
        return reader.load(), reader.storages
    except InputError:
        raise
    except Exception as error:  # a damaged pickle trips the interpreter in any way it likes
        raise InputError("data.pkl is damaged or is not a pickled state dict") from error


def _tensor(storage, offset, size, stride, _grad, _hooks, flags=None):
    return Tensor(storage, offset, size, stride, None, flags)


def _tensor_with_dtype(storage, offset, size, stride, _grad, _hooks, dtype, flags=None):
    return Tensor(storage, offset, size, stride, dtype, flags)


def _tensor_with_attributes(function, _type, arguments, _state):
    if function not in (_tensor, _tensor_with_dtype):
        raise pickle.UnpicklingError("rebuilds what is no tensor")
    return function(*arguments)


def _dictionary(pairs=()):
    made = {}
    for key, value in pairs:
        _set(made, key, value)
    return made


GLOBALS = {
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": lambda *_: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch.storage.UntypedStorage": np.dtype("u1"),
    **{f"torch.{kind.storage}": kind.numpy for kind in TYPES if kind.storage},
    **{f"torch.{kind.torch}": kind.numpy for kind in TYPES},
}
# Beside these, what has a capital is a class by the naming of PEP 8: calling it makes Nothing.
HARMLESS = {
    f"{module}.{name}"
    for modules, names in [
        ("torch", "device"),
        ("torch.serialization", "_get_layout"),
        ("_codecs", "encode"),
        ("copyreg", "_reconstructor"),
        ("functools", "partial"),
        ("re", "_compile"),
        ("types", "SimpleNamespace"),
        ("collections", "deque"),
        ("datetime", "datetime date time timedelta timezone"),
        ("builtins", "complex set frozenset bytearray slice range list dict tuple"),
        ("builtins", "int float str bytes bool object"),
        ("numpy", "dtype ndarray"),
        ("numpy.core.multiarray numpy._core.multiarray", "scalar _reconstruct"),
        ("numpy.core.numeric numpy._core.numeric", "_frombuffer"),
        ("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor"),
    ]
    for module in modules.split()
    for name in names.split()
} | {f"numpy.{kind.numpy.name}" for kind in TYPES}
# Of these modules nothing is ever passed over, class or function, except what is HARMLESS.
ACTING = set(
    "_io _pickle _posixsubprocess _thread _winapi asyncio atexit bdb builtins cloudpickle code "
    "codeop concurrent ctypes dill doctest ftplib gc http importlib inspect io joblib linecache "
    "marshal mmap multiprocessing nt operator _operator os pdb pickle pip pkgutil platform posix "
    "profile cProfile pty pydoc requests runpy shutil signal site smtplib socket socketserver "
    "sqlite3 ssl subprocess sys tempfile threading timeit trace types urllib venv webbrowser "
    "xmlrpc zipimport".split()
)
OPCODES = (
    "PROTO STOP MARK GLOBAL STACK_GLOBAL BINPERSID NONE NEWTRUE NEWFALSE BININT BININT1 "
    "BININT2 LONG1 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE BINBYTES "
    "SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST EMPTY_DICT BINGET "
    "LONG_BINGET BINPUT LONG_BINPUT MEMOIZE"
)


class Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists, tuples, plain values, Nothing and what GLOBALS makes.

    The base is the interpreter in Python: its memo is a dictionary, where the C one allocates an
    array as long as the largest index that the file names. Opcodes that PyTorch does not write are
    missing, among them all that look up extension codes, allocate what they are told to or hash
    what they are given; those that make objects are written anew below and make Nothing.
    """

    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in (ord(getattr(pickle, name)) for name in OPCODES.split())
    }

    def __init__(self, stream: Stream):
        super().__init__(stream, encoding="latin1")  # of the strings of Python 2
        self.stream = stream
        self.storages: dict[str, Storage] = {}

    def find_class(self, module, name):
        if self.proto < 3:  # whose modules have the names of Python 2
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full in GLOBALS:
            return GLOBALS[full]
        if module.partition(".")[0] in ACTING and full not in HARMLESS:
            raise InputError(foreign_name(Nothing(full)))
        return Nothing(full)

    def persistent_load(self, pid):
        if pid[0] == "module":  # with its source code beside it, in the format before 1.6
            return pid[1]
        kind, dtype, name, _location, count, *view = pid
        if kind != "storage" or view not in ([], [None]):
            raise pickle.UnpicklingError("refers to what is no storage of its own")
        storage = Storage(dtype, name, count)
        if type(name) is str:
            self.storages.setdefault(name, storage)
        return storage

    def load_reduce(self):
        arguments = self.stack.pop()
        called = self.stack[-1]
        if isinstance(called, types.FunctionType):  # only GLOBALS brings functions
            # A list or tuple that is there once can be gone through again and again.
            within = sum(len(x) for x in arguments if type(x) in (list, tuple))
            self.stream.spend(len(arguments) + within)
            self.stack[-1] = called(*arguments)
        elif not isinstance(called, Nothing):
            raise pickle.UnpicklingError("calls what is no function")
        elif not _is_class(called.name):
            raise InputError(foreign_name(called))

    def load_frame(self):
        self.read(8)  # what is in a frame is read, and counted, as what is in none

    def load_newobj(self):
        self.stack.pop()
        if not isinstance(self.stack[-1], Nothing):
            raise pickle.UnpicklingError("makes an object of what is no class")

    def load_newobj_ex(self):
        self.stack.pop()
        self.load_newobj()

    def load_build(self):
        self.stack.pop()  # attributes, as the version numbers that modules leave on a state dict

    def load_empty_set(self):
        self.append(Nothing("builtins.set"))  # a real one would hash what it is given

    def load_frozenset(self):
        self.pop_mark()
        self.append(Nothing("builtins.frozenset"))

    def load_additems(self):
        self.pop_mark()

    def load_bytearray8(self):
        size = int.from_bytes(self.read(8), "little")
        if len(self.read(size)) != size:  # which allocates no more than there is
            raise pickle.UnpicklingError("is truncated")
        self.append(Nothing("builtins.bytearray"))

    def load_append(self):
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self):
        values = self.pop_mark()
        self._extend(values)

    def _extend(self, values):
        if not isinstance(self.stack[-1], Nothing):
            self.stack[-1].extend(values)

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def load_setitems(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    dispatch |= {
        ord(pickle.FRAME): load_frame,
        ord(pickle.REDUCE): load_reduce,
        ord(pickle.NEWOBJ): load_newobj,
        ord(pickle.NEWOBJ_EX): load_newobj_ex,
        ord(pickle.BUILD): load_build,
        ord(pickle.EMPTY_SET): load_empty_set,
        ord(pickle.FROZENSET): load_frozenset,
        ord(pickle.ADDITEMS): load_additems,
        ord(pickle.BYTEARRAY8): load_bytearray8,
        ord(pickle.APPEND): load_append,
        ord(pickle.APPENDS): load_appends,
        ord(pickle.SETITEM): load_setitem,
        ord(pickle.SETITEMS): load_setitems,
    }


def _is_class(name: str) -> bool:
    own = name.rpartition(".")[2].removeprefix("__pyx_unpickle_")  # of Cython
    return name in HARMLESS or own.lstrip("_")[:1].isupper()


def _set(made: dict | Nothing, key: object, value: object) -> None:
    if isinstance(made, Nothing):
        return
    # Hashing a tuple recurses without a limit, and a file can nest one deep enough to crash.
    if type(key) not in (str, int, float, bool, type(None)):
        made.setdefault(NO_NAME, []).append(value)
    elif key in made:
        raise InputError(f"{printable(key)}: is there twice")
    else:
        made[key] = value

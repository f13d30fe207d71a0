"""The pickle of a state dict, written: what `torch.load(weights_only=True)` takes."""

import math
import pickle

from dinogrl_jax.weights.torch_types import Type


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

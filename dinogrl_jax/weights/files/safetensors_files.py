"""Files of safetensors: a header in JSON, and bytes behind it."""

import json
from pathlib import Path

import numpy as np
import safetensors

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.weights.files.torch_types import LARGEST_HEADER, TYPES, Content, printable


def opened_safetensors(path: Path, data: np.ndarray) -> Content:
    """The content of a file: one dictionary of arrays, read-only views into the file.

    Raises InputError for a file that is damaged, or has a type that numpy lacks.
    """
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
    except InputError:
        raise
    except Exception as error:  # its own, and numpy's for shapes such as [0, 1 << 60, 1 << 60]
        raise InputError(f"is not a valid safetensors file ({printable(error)})") from error
    return Content(state, lambda array: array, data.size)


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

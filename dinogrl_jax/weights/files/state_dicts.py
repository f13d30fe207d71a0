"""Where the state dict is among what else a file holds."""

import re
from collections.abc import Iterator

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files.torch_pickle import NO_NAME
from dinogrl_jax.weights.files.torch_types import (
    ONLY_TENSORS,
    Nothing,
    Tensor,
    printable,
)

WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
MOST_TENSORS = 10_000  # of a file, and dictionaries; large vision transformers have 700
LONGEST_NAME = 500  # characters
DEEPEST = 8  # dictionaries in each other
# What wraps modules of FSDP and of torch.compile, anywhere in a name.
WRAPPING = re.compile(
    r"^(?:(?:module|_orig_mod)\.)+|"
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


def single_state_dict(tree: object) -> dict[str, object]:
    """The tensors of the state dict in a file, by key, where there is one and no other.

    Raises InputError where there is none, or several.
    """
    for _ in range(DEEPEST):  # a dictionary can hold itself
        if not isinstance(tree, dict):
            break
        tensors = {key: item for key, item in tree.items() if is_tensor(item)}
        inner = [name for name in WRAPPERS if isinstance(tree.get(name), dict)]
        remarks = len(inner) == 1 and all(map(_is_number, tensors.values()))
        if tensors and not (remarks and _holds_tensors(tree[inner[0]])):
            _check_names(tree)
            return tensors
        if NO_NAME in tree:
            raise InputError(f"has a dictionary whose keys are no names; {ONLY_TENSORS}")
        if len(inner) != 1:
            raise InputError(without_state_dict(tree))
        tree = tree[inner[0]]
    if isinstance(tree, Nothing):
        what = f"but a pickled {printable(tree.name)}"
        raise InputError(f"holds no dictionary of tensors {what}; {ONLY_TENSORS}")
    raise InputError(f"holds no dictionary of tensors; {ONLY_TENSORS}")


def named_tensors(tree: object) -> dict[str, object]:
    """All tensors of a file that have names, as keys behind those of the dictionaries around them.

    Dictionaries by numbers, as optimisers keep, and lists are passed over; a dictionary that stands
    in several places counts once.

    Raises InputError where there are none, or too many for a model.
    """
    if not isinstance(tree, dict):
        return single_state_dict(tree)  # which says what is wrong with it
    unnamed = [item for key, item in tree.items() if not isinstance(key, str)]
    if any(map(is_tensor, unnamed + tree.get(NO_NAME, []))):
        _check_names(tree)
    found: dict[str, object] = {}
    levels, seen = [("", tree)], {id(tree)}
    for _ in range(DEEPEST):
        levels = [x for prefix, value in levels for x in _entries(prefix, value, found, seen)]
    if not found:
        raise InputError(without_state_dict(tree))
    return found


def _entries(
    prefix: str, value: dict, found: dict[str, object], seen: set[int]
) -> Iterator[tuple[str, dict]]:
    """Add a dictionary's tensors to those that were found; give the dictionaries in it."""
    for key, item in value.items():
        if not isinstance(key, str) or not (is_tensor(item) or isinstance(item, dict)):
            continue
        name = prefix + WRAPPING.sub("", key)
        if len(name) > LONGEST_NAME:
            raise InputError(f"{printable(name)}: is too long a name")
        if len(found) + len(seen) > MOST_TENSORS:
            raise InputError(f"{printable(name)}: is one of more than {MOST_TENSORS:,} tensors")
        if is_tensor(item):
            if name in found:
                raise InputError(f"{printable(name)}: is there twice")
            found[name] = item
        elif id(item) not in seen:
            seen.add(id(item))
            yield f"{name}.", item


def is_tensor(item: object) -> bool:
    """Whether something in a file's tree is a tensor."""
    return isinstance(item, (Tensor, np.ndarray))


def _is_number(tensor: object) -> bool:
    return isinstance(tensor, Tensor) and tensor.size in ((), (1,))


def _holds_tensors(value: dict) -> bool:
    return any(is_tensor(item) or isinstance(item, dict) for item in value.values())


def _check_names(state: dict) -> None:
    """Raise InputError where a state dict has tensors without names, or below another level."""
    if NO_NAME in state:
        raise InputError(f"has a dictionary whose keys are no names; {ONLY_TENSORS}")
    for key, item in state.items():
        nested = isinstance(item, dict) and any(map(is_tensor, item.values()))
        if nested or (is_tensor(item) and not isinstance(key, str)):
            raise InputError(f"{printable(key)}: is nested or no name; {ONLY_TENSORS}")


def without_state_dict(tree: dict) -> str:
    """What a dictionary without tensors holds instead, and what to do."""
    objects = {key: item.name for key, item in tree.items() if isinstance(item, Nothing)}
    if any(name.startswith("numpy") for name in objects.values()):
        return "holds arrays of NumPy: save {name: torch.from_numpy(array)} of them"
    names = [key for key in tree if key is not NO_NAME][:8]
    listed = [f"{key} (a {objects[key]})" if key in objects else str(key) for key in names]
    among = ", ".join(map(printable, listed))
    return f"holds no state dict, or several, among: {among}; {ONLY_TENSORS}"

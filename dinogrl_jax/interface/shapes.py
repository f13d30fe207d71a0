"""JSON of a known shape: whatever a file holds, a reader gets a value of that shape or one line.

A shape is a type (`float` includes whole numbers, `object` is anything), a tuple of types,
`[shape]` for a list, or a dictionary for an object: of its keys, those that end in "?" may be
missing, and `...` stands for all keys that are not listed (without it they may be anything).
"""

import json
from typing import Any

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import shortened

Shape = Any
DEEPEST = 64  # objects and lists within each other
WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
    type(None): "null",
}


def json_value(text: str, shape: Shape = object) -> Any:
    """The value of a JSON text; InputError says what is wrong with it, without naming the file."""
    try:
        value = json.loads(text, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise InputError(f"is not JSON ({reason})") from error
    if _is_deep(value):
        raise InputError(f"is no JSON of ours: more than {DEEPEST} objects lie within each other")
    if wrong := shape_problem(value, shape, "it"):
        raise InputError(wrong)
    return value


def shape_problem(value: Any, shape: Shape, name: str) -> str:
    """Why a value from JSON has not that shape, in words; empty where it has."""
    if isinstance(shape, dict):
        return _object_problem(value, shape, name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is {_words(value)}, not a list"
        found = (shape_problem(x, shape[0], f"{name}[{i}]") for i, x in enumerate(value))
        return next(filter(None, found), "")
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if object in kinds or type(value) in kinds or (float in kinds and type(value) is int):
        return ""
    return f"{name} is {_words(value)}, not {' or '.join(WORDS[kind] for kind in kinds)}"


def _object_problem(value: Any, shape: dict, name: str) -> str:
    if not isinstance(value, dict):
        return f"{name} is {_words(value)}, not an object"
    listed = {str(key).removesuffix("?") for key in shape if key is not ...}
    for key, inner in shape.items():
        if key is ...:
            pairs = [(other, other) for other in value if other not in listed]
        else:
            pairs = [(key.removesuffix("?"), key)]
        for own, known in pairs:
            if own not in value:
                if not known.endswith("?"):
                    return f"{name} has no {own!r}"
            elif wrong := shape_problem(value[own], inner, shortened(own)):
                return wrong
    return ""


def _words(value: Any) -> str:
    if isinstance(value, int | float) or value is None:
        return json.dumps(value)[:40]
    return shortened(value) if isinstance(value, str) else WORDS[type(value)]


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        inner = (
            x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)
        )
        level = [x for values in inner for x in values if isinstance(x, dict | list)]
        if not level:
            return False
    return True

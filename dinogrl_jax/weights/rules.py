"""Path rules: which PyTorch key belongs to which path in the variables.

A rule pairs two templates and a layout:

    Rule("blocks.{i}.attn.qkv.weight", "params/block{i}/qkv/kernel", LINEAR)

`{i}` stands for letters, digits and underscores, `{i:[0-9]+}` for what the expression (without
braces) matches. Both templates have the same fields, so that either name gives the other. A path
begins with its collection. What a file holds and no model uses has a rule as well: Dropped.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

FIELD = re.compile(r"\{(\w+)(?::([^{}]+))?\}")
ANY = "[0-9A-Za-z_]+"


class Layout(NamedTuple):
    """How an array lies in PyTorch and here: two functions that undo each other."""

    name: str
    from_torch: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def permuted(name: str, *axes: int) -> Layout:
    """The layout here that has PyTorch's axes in this order."""
    back = [axes.index(axis) for axis in range(len(axes))]
    return Layout(name, lambda array: array.transpose(axes), lambda array: array.transpose(back))


def reshaped(torch: tuple[int, ...], here: tuple[int, ...]) -> Layout:
    """The layout of the same entries in the same order in another shape."""
    return Layout("reshaped", lambda array: array.reshape(here), lambda array: array.reshape(torch))


IDENTITY = Layout("", lambda array: array, lambda array: array)
LINEAR = permuted("linear", 1, 0)  # [out, in] → [in, out]
CONV = permuted("conv", 2, 3, 1, 0)  # OIHW → HWIO
CONV1D = permuted("conv1d", 2, 1, 0)  # OIW → WIO


@dataclass(frozen=True)
class Rule:
    """One tensor and its place. Several paths get a copy each; on the way back they must agree."""

    key: str
    path: str | tuple[str, ...]
    layout: Layout = IDENTITY

    def __post_init__(self):
        if any(_fields(path).keys() != _fields(self.key).keys() for path in self.paths):
            raise ValueError(f"{self.key} and {self.path} have different fields")

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def match_key(self, key: str) -> dict[str, str] | None:
        """The fields of a key, None if the rule is not for it."""
        return fields_of_name(self.key, key, *self.paths)

    def match_path(self, path: str) -> dict[str, str] | None:
        """The fields of a path, None if the rule is not for it."""
        matches = (fields_of_name(template, path, self.key, *self.paths) for template in self.paths)
        return next((fields for fields in matches if fields is not None), None)


@dataclass(frozen=True)
class Dropped:
    """A tensor that no model uses: not read, and written with its initial value.

    A file may lack it; if it is there, its shape is checked. Without fields it is always written;
    with fields, for every written key that matches `beside`. The shape None is any shape, and such
    a tensor is never written, unless it is `like` the tensor of another key, which has a rule: then
    it has its shape, and is what `initial` makes of that tensor.
    """

    key: str
    shape: tuple[int, ...] | None
    initial: Callable[[Any], np.ndarray] = partial(np.zeros, dtype=np.float32)
    beside: str = ""
    like: str = ""

    def __post_init__(self):
        if self.shape is not None and _fields(self.key).keys() != _fields(self.beside).keys():
            raise ValueError(f"{self.key} has fields, so it needs a `beside` that has the same")

    def match_key(self, key: str) -> dict[str, str] | None:
        return fields_of_name(self.key, key, self.beside)


def under(rules: Iterable[Rule | Dropped], key: str = "", path: str = "") -> list[Rule | Dropped]:
    """The rules of a module as rules of the model around it.

    `key` goes in front of PyTorch's keys, `path` between the collection and the rest of a path:
    under(RULES, "image_encoder1.", "appearance/visible/").
    """

    def placed(rule: Rule | Dropped) -> Rule | Dropped:
        if isinstance(rule, Dropped):
            others = {name: getattr(rule, name) for name in ("beside", "like")}
            others = {name: other and key + other for name, other in others.items()}
            return replace(rule, key=key + rule.key, **others)
        paths = tuple(template.replace("/", f"/{path}", 1) for template in rule.paths)
        return replace(rule, key=key + rule.key, path=paths)

    return [placed(rule) for rule in rules]


def rule_collections(rules: Iterable[Rule | Dropped]) -> set[str]:
    """The collections of variables that rules name: what their paths begin with."""
    rules = (rule for rule in rules if isinstance(rule, Rule))
    return {path.split("/")[0] for rule in rules for path in rule.paths}


def filled_template(template: str, fields: Mapping[str, str]) -> str:
    """The name that a template gives with these fields."""
    return FIELD.sub(lambda field: fields[field[1]], template)


def fields_of_name(template: str, name: str, *others: str) -> dict[str, str] | None:
    """The fields of a name, None if it does not fit; `others` may hold fields' expressions too."""
    match = _pattern(template, *others).fullmatch(name)
    return match and match.groupdict()


def pattern_of_any(rules: Iterable[Rule]) -> re.Pattern:
    """An expression for the keys of all rules together."""
    return re.compile(
        "|".join(_expression(rule.key, rule.paths, f"_{n}") for n, rule in enumerate(rules))
    )


@cache
def _pattern(template: str, *others: str) -> re.Pattern:
    return re.compile(_expression(template, others))


def _expression(template: str, others: tuple[str, ...], suffix: str = "") -> str:
    """The expression for names of a template; suffix: of the names of its groups."""
    expressions = _fields(*others, template)
    text, *rest = FIELD.split(template)
    pattern, seen = re.escape(text), set()
    for name, text in zip(rest[::3], rest[2::3], strict=True):
        group = f"{name}{suffix}"
        field = f"(?P={group})" if name in seen else f"(?P<{group}>{expressions[name]})"
        pattern += field + re.escape(text)
        seen.add(name)
    return pattern


def _fields(*templates: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, expression in (field for text in templates for field in FIELD.findall(text)):
        fields[name] = expression or fields.get(name, ANY)
    return fields

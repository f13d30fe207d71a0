"""A setting: its value, its meaning with the unit, and its ranges, said once where it is declared.

    "flip": Setting(0.5, "probability of a horizontal flip", between(0, 1)),

A declaration is a tree of sections whose leaves are settings; a configuration has the same form.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

Declaration = Mapping[str, Any]  # section → declaration, name → Setting


class Range(NamedTuple):
    """What a value has to do; functions of the value and of the whole configuration."""

    holds: Callable[[Any, ConfigDict], bool]
    text: Callable[[ConfigDict | None], str]  # after "it has to"; None: for people who ask for help
    relates: bool = False  # to other settings, which are in their own ranges when this is asked


class Setting:
    """A setting: the value that it has unless somebody changes it, its meaning, its ranges.

    Values are of the default's type; those of a tuple are of the type of its first.
    """

    def __init__(self, default: Any, meaning: str = "", *ranges: Range) -> None:
        self.default, self.meaning, self.ranges = default, meaning, ranges

    def having(self, default: Any) -> "Setting":
        """The same setting with another default."""
        return Setting(default, self.meaning, *self.ranges)


def at_least(low: int | float) -> Range:
    return Range(lambda value, _: value >= low, lambda _: f"be {low} or more")


def between(low: int | float, high: int | float) -> Range:
    return Range(lambda value, _: low <= value <= high, lambda _: f"be {low} to {high}")


def below(high: int | float) -> Range:
    return Range(lambda value, _: value < high, lambda _: f"be less than {high}")


def one_of(*names: str) -> Range:
    return Range(lambda value, _: value in names, lambda _: f"be {alternatives(names)}")


def name_in(table: str) -> Range:
    """Of a table that a room above has: "data.datasets.DATASETS". Who adds an entry is done."""
    return Range(
        lambda value, _: value in table_at(table), lambda _: f"be {alternatives(table_at(table))}"
    )


def names_in(table: str, *alone: str) -> Range:
    """Names of a table with commas between them, or one of some other words."""
    return Range(
        lambda value, _: value in alone or set(value.split(",")) <= set(table_at(table)),
        lambda _: f"be {alternatives(alone)}, or with commas of {', '.join(table_at(table))}",
    )


def named_strength(table: str) -> Range:
    """A name of a table, and a number from 0 to 1 behind it."""

    def holds(value: Any, _: ConfigDict) -> bool:
        name, _, strength = str(value).partition(" ")
        return name in table_at(table) and bool(re.fullmatch(r"0|1|0?\.\d+|[01]\.0*", strength))

    return Range(
        holds, lambda _: f"be {alternatives(table_at(table))}, and behind it a number from 0 to 1"
    )


def matches(pattern: str, text: str) -> Range:
    return Range(lambda value, _: bool(re.fullmatch(pattern, value)), lambda _: text)


def each(one: Range) -> Range:
    """Of the values of a tuple."""
    return Range(
        lambda value, config: all(one.holds(x, config) for x in value),
        lambda config: one.text(config) and f"{one.text(config)}, each value of it",
        one.relates,
    )


def divides(name: str) -> Range:
    """The value of another setting."""
    return Range(
        lambda value, config: value_at(config, name) % value == 0,
        lambda config: f"divide {name_with_value(name, config)}",
        relates=True,
    )


def multiple_of(name: str) -> Range:
    return Range(
        lambda value, config: value % value_at(config, name) == 0,
        lambda config: f"be a multiple of {name_with_value(name, config)}",
        relates=True,
    )


def below_setting(name: str) -> Range:
    return Range(
        lambda value, config: value < value_at(config, name),
        lambda config: f"be less than {name_with_value(name, config)}",
        relates=True,
    )


def obvious(one: Range) -> Range:
    """The same, which people who ask for help need not read."""
    return one._replace(text=lambda config: one.text(config) if config is not None else "")


SHARE = between(0, 1)
COUNT = obvious(between(1, 1_000_000))
NUMBER = obvious(between(0, 1_000_000))  # of anything, or its weight; larger ones overflow
PIXELS = obvious(between(1, 8192))
NOT_EMPTY = obvious(Range(lambda value, _: len(value) > 0, lambda _: "have at least one value"))
RISING = Range(
    lambda value, _: (
        not value or (len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1])
    ),
    lambda _: "be empty, or two numbers of which the second is larger",
)
PATH = obvious(matches(r"(?!\w+://).*", "be a path of this machine"))  # no address; ~ is the home


def value_at(config: ConfigDict, name: str) -> Any:
    """The setting of a name with dots."""
    for key in name.split("."):
        config = config[key]
    return config


def name_with_value(name: str, config: ConfigDict | None) -> str:
    return name if config is None else f"{name}, {value_at(config, name)}"


def table_at(place: str) -> Mapping[str, Any]:
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"dinogrl_jax.{module}"), name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def alternatives(names: Any) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def leaves(tree: Mapping | ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a declaration or a configuration by their names with dots."""
    for key, value in tree.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def default_values(declaration: Declaration) -> dict[str, Any]:
    """The values that settings have unless somebody changes them."""
    return {
        key: default_values(value) if isinstance(value, Mapping) else value.default
        for key, value in declaration.items()
    }


def merged_declaration(
    shared: Declaration, own: Mapping[str, Any], known: Declaration
) -> dict[str, Any]:
    """Shared settings with those of a method.

    own: sections with settings, and with plain values: these have the meaning and the ranges that
    stand at their place in `shared` or `known`.
    """
    merged = dict(shared)
    for key, value in own.items():
        if isinstance(value, Mapping):
            merged[key] = merged_declaration(shared.get(key, {}), value, known.get(key, {}))
        elif isinstance(value, Setting):
            merged[key] = value
        else:
            merged[key] = (shared.get(key) or known.get(key) or Setting(None)).having(value)
    return merged

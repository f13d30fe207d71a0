"""A configuration is looked up: names, types, ranges and sizes that have to fit, all at once.

`DECLARED` has the declaration of every method; `dinogrl_jax.methods` fills it, as no room below
knows which methods there are.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.interface.settings import PATH, Declaration, Setting, leaves, value_at

DECLARED: dict[str, Declaration] = {}  # by the name of the method
MOST = 10  # problems in a line
LARGEST = 1e300  # finite numbers are smaller
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text of one line",
    tuple: "a tuple, like (1, 2)",
}


def declaration_of(config: ConfigDict) -> Declaration:
    """That of the configured method; InputError for a method that is not there."""
    return lookup(DECLARED, str(config.get("method", "")), "method")


def checked_config(config: ConfigDict) -> ConfigDict:
    """The configuration, complete, with `~` replaced in paths.

    Raises InputError that names every setting which is unknown, of a wrong type or out of range.
    """
    declaration = declaration_of(config)
    check_names(config, declaration)
    config = complete_config(config, declaration)
    settings = dict(leaves(declaration))
    check_values(settings, config)
    for name, setting in settings.items():
        if PATH in setting.ranges:
            set_value(config, name, expanded_path(value_at(config, name), name))
    return config


def check_section(config: ConfigDict, section: str) -> None:
    """Raise InputError for what a section's settings, or those below it, have and must not."""
    settings = leaves(declaration_of(config))
    check_values({k: s for k, s in settings if k.startswith(f"{section}.")}, config)


def check_values(settings: Mapping[str, Setting], config: ConfigDict) -> None:
    """Raise InputError that names every value of a wrong type or out of range."""
    for problems in (
        type_problems(settings, config),
        range_problems(settings, config, relates=False),
        range_problems(settings, config, relates=True),  # which need the others to be right
    ):
        refuse(list(problems))


def complete_config(config: ConfigDict, declaration: Declaration) -> ConfigDict:
    """A copy with the defaults of settings that it lacks, as one of an earlier version may.

    Raises InputError where a value stands in the place of a section.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name, setting in leaves(declaration):
            *sections, last = name.split(".")
            within = config
            for key in sections:
                if key not in within:
                    within[key] = ConfigDict()
                within = within[key]
                if not isinstance(within, ConfigDict):
                    raise InputError(f"{'.'.join(sections)} has a value, not settings")
            if last not in within:
                within[last] = setting.default
    return config


def check_names(config: ConfigDict, declaration: Declaration) -> None:
    """Raise InputError for settings that are not there, with those that may have been meant."""
    known = dict(leaves(declaration))
    refuse([unknown(name, known) for name, _ in leaves(config) if name not in known])


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say of a setting that is not there."""
    known, name = list(known), name if name.isprintable() else ascii(name)
    if any(other.startswith(f"{name}.") for other in known):
        return f"{name} is a section: say which setting of it"
    near = nearest(name, known)
    return f"{name}: there is no such setting" + f"; did you mean {near}?" * bool(near)


def nearest(name: str, known: Sequence[str]) -> str:
    """The setting that a misspelt name means: of another section, misspelt, abbreviated."""
    section, _, leaf = name.rpartition(".")
    # The first of a name counts: shared sections stand before those of a model.
    leaves = {other.rpartition(".")[2]: other for other in reversed(known)}
    if leaf in leaves:
        return leaves[leaf]
    for among, wanted, cutoff in ((known, name, 0.8), (list(leaves), leaf, 0.7)):
        if close := difflib.get_close_matches(wanted, among, 1, cutoff):
            return leaves.get(close[0], close[0])
    letters = re.compile(re.escape(f"{section}." * bool(section)) + r"[^.]*".join(leaf[:12]) + ".*")
    return next((other for other in known if leaf and letters.fullmatch(other)), "")


def type_problems(settings: Mapping[str, Setting], config: ConfigDict) -> Iterator[str]:
    for name, setting in settings.items():
        if problem := type_problem(value_at(config, name), setting.default):
            yield f"{name} = {value_text(value_at(config, name))}: it has to be {problem}"


def type_problem(value: Any, default: Any) -> str:
    """What a value has to be, in words; empty where it is of the default's type."""
    kind = type(default)
    if kind is tuple:
        if not isinstance(value, tuple | list):
            return WORDS[tuple]
        wrong = default and next(filter(None, (type_problem(x, default[0]) for x in value)), "")
        return f"a tuple, each value of it {wrong}" if wrong else ""
    if kind is float:
        right = isinstance(value, int | float) and abs(value) < LARGEST
    elif kind is str:
        right = isinstance(value, str) and value.isprintable()
    else:
        right = isinstance(value, kind)
    return "" if right and (kind is bool or not isinstance(value, bool)) else WORDS[kind]


def range_problems(
    settings: Mapping[str, Setting], config: ConfigDict, relates: bool
) -> Iterator[str]:
    """One for each setting that is out of a range: those that relate it to others, or the rest."""
    for name, setting in settings.items():
        value = value_at(config, name)
        for one in setting.ranges:
            if one.relates == relates and not one.holds(value, config):
                yield f"{name} = {value_text(value)}: it has to {one.text(config)}"
                break


def refuse(problems: Sequence[str]) -> None:
    if problems:
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise InputError("; ".join([*problems[:MOST], *more]))


def value_text(value: Any) -> str:
    text = "a number of more than 40 digits" if is_huge(value) else " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"


def is_huge(value: Any) -> bool:
    """Whether a whole number is too long to be printed."""
    return isinstance(value, int) and abs(value) >= 10**40


def set_value(config: ConfigDict, name: str, value: Any) -> None:
    section, _, key = name.rpartition(".")
    (value_at(config, section) if section else config)[key] = value


def expanded_path(path: str, name: str) -> str:
    """A path with `~` as the home; InputError where nobody has it, and for an address."""
    if not PATH.holds(path, None):
        raise InputError(f"{name} = {path!r}: it has to be a path of this machine")
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise InputError(f"{name} = {path!r}: there is no such home; say ./{path} if that is meant")
    return found

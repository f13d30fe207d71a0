"""The command line of the scripts that take a configuration: flags, and settings that it changes.

--config FILE --config.section.key=value --workdir FOLDER --flag …
"""

import ast
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax.interface import usage
from dinogrl_jax.interface.checks import (
    DECLARED,
    check_names,
    checked_config,
    complete_config,
    declaration_of,
    expanded_path,
    nearest,
    set_value,
    type_problem,
    unknown,
    value_text,
)
from dinogrl_jax.interface.config_files import read_config, run_of
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.settings import default_values, leaves

CONFIG = flags.DEFINE_string(
    "config", "", "a file with get_config(), or a run's config.json, whose settings are taken"
)
WORKDIR = flags.DEFINE_string(
    "workdir", "", "folder of the run; runs/<name of the config> if empty"
)
WHICH = "best"  # of a model's checkpoints, unless a command line says otherwise
HELP = ("-h", "-help", "--help", "--helpshort", "--helpfull")
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


class Given(NamedTuple):
    """The words of a command line."""

    flags: list[str]
    changes: dict[str, str | None]  # setting → the text after "="; None without any
    help: bool
    section: str  # whose help is asked for


def config_and_workdir() -> tuple[ConfigDict, str]:
    """The configuration and the working directory; InputError if no configuration is named."""
    config = config_from_flags()
    return config, workdir_of(config)


def workdir_of(config: ConfigDict | None) -> str:
    """The working directory of a run; InputError if `config` is None, which nobody has named."""
    if config is None:
        raise InputError(
            "command line: say which configuration, e.g. --config vcm; "
            "--help lists flags and settings"
        )
    return expanded_path(WORKDIR.value, "--workdir") or run_of(CONFIG.value)


def config_from_flags(
    otherwise: Callable[[], ConfigDict | None] = lambda: None,
) -> ConfigDict | None:
    """The configuration of the command line, looked up, or None; call it once, for all flags.

    otherwise: where no --config is given, gives the configuration that settings change.

    Prints the help and exits where that is asked for. Raises InputError for unknown flags and
    settings, and for settings of a wrong type or out of range.
    """
    given = given_words(sys.argv[1:])
    parse_flags(given.flags)
    config = read_config(CONFIG.value) if CONFIG.value else otherwise()
    if config is not None:
        config = changed_config(config, given.changes, CONFIG.value or WORKDIR.value)
    if given.help or given.section:
        print_help(config, given.section)
        sys.exit(0)
    if config is None and given.changes:
        name = next(iter(given.changes))
        raise InputError(
            f"command line: --config.{name} changes a configuration: say which, --config FILE"
        )
    return config if config is None else checked_config(config)


def config_of(name: str, words: Sequence[str]) -> ConfigDict:
    """The configuration of a file, looked up, with the settings of words --config.key=value.

    For scripts that read their other flags themselves. Raises InputError as `config_from_flags`.
    """
    return checked_config(changed_config(read_config(name), given_words(words).changes, name))


def given_words(words: Sequence[str]) -> Given:
    """Flags and settings apart. A setting's value may be the next word."""
    others, changes, asked, section, words = [], {}, False, "", list(words)
    while words:
        word = words.pop(0)
        if found := re.fullmatch(r"--?(no)?config\.([^=]*)(?:=(.*))?", word, re.DOTALL):
            no, name, value = found.groups()
            if value is None and not no and words and not re.match(r"-[^\d.]", words[0]):
                value = words.pop(0)
            changes[name] = "false" if no else value
        elif word in HELP:
            asked = True
        elif found := re.fullmatch(r"--?help[-_]section(?:=(.*))?", word):
            section = found[1] if found[1] is not None else words.pop(0) if words else ""
            asked |= not section
        else:
            others.append(word)
    return Given(others, changes, asked, section)


def parse_flags(words: Sequence[str]) -> None:
    """Read absl's flags; InputError for one that is not there, and for a word that is none."""
    try:
        rest = flags.FLAGS([sys.argv[0], *words])
    except flags.UnrecognizedFlagError as error:
        known = dict(leaves(next(iter(DECLARED.values()), {})))
        near = nearest(error.flagname, list(known)) if "." in error.flagname else ""
        text = f"{error}; settings are --config.{near or 'section.key'}=value"
        raise InputError(f"command line: {text}; --help lists what there is") from error
    except flags.Error as error:
        text = " ".join(str(error).split())
        raise InputError(f"command line: {text}; --help lists what there is") from error
    if len(rest) > 1:
        raise InputError(
            f"command line: {rest[1]!r} is no flag; settings are --config.key=value; "
            "--help lists what there is"
        )


def changed_config(
    config: ConfigDict, changes: Mapping[str, str | None], source: str = "settings"
) -> ConfigDict:
    """A configuration, complete, with the settings of a command line; source: where it is from."""
    declaration = declaration_of(config)
    with errors_naming(source):
        check_names(config, declaration)
    config, known = complete_config(config, declaration), dict(leaves(declaration))
    asked = changes.get("method")
    if asked in DECLARED and asked != config.method:
        raise InputError(
            f"command line: --config.method={asked}: {source} is a configuration of "
            f"{config.method}: name one of the other method"
        )
    for name, text in changes.items():
        if name not in known:
            raise InputError(f"command line: --config.{unknown(name, known)}")
        default = known[name].default
        value = value_of_text(text, default)
        if problem := type_problem(value, default):
            said = value_text(text).strip("'\"")
            raise InputError(f"command line: --config.{name}={said}: it has to be {problem}")
        with config.ignore_type():
            set_value(config, name, value)
    return config


def value_of_text(text: str | None, default: Any) -> Any:
    """The value that a text means, of the type of a default; the text itself where it means none.

    A number may have underscores, and a tuple needs no parentheses.
    """
    if text is None:
        return True  # --config.pbmge
    if isinstance(default, bool):
        return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}.get(text.lower(), text)
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, tuple):
            return tuple_of_text(text, default)
        return type(default)(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def tuple_of_text(text: str, default: tuple) -> tuple:
    if default and isinstance(default[0], str) and not re.search("['\"(]", text):
        return tuple(text.split(",")) if text else ()
    value = ast.literal_eval(text) if text else ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def print_help(config: ConfigDict | None, section: str) -> None:
    whose = CONFIG.value or WORKDIR.value
    if config is None:
        name = next(iter(DECLARED))
        config = ConfigDict({**default_values(DECLARED[name]), "method": name})
        whose = f"the method {name}"
    declaration = declaration_of(config)
    if section:
        usage.show(usage.section_text(section, declaration, config))
        return
    about = sys.modules["__main__"].__doc__ or ""
    usage.show(usage.help_text(about, declaration, config, whose))

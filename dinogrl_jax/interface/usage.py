"""What --help prints: the script, its flags, and the settings from where they are declared."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator

from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax.interface.checks import value_text
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.settings import Declaration, Setting, leaves, value_at

INDENT, MEANING = "  ", 34  # the column in which meanings begin


def help_text(about: str, declaration: Declaration, config: ConfigDict, whose: str) -> str:
    """The help of a script.

    about: its own text. whose: the name of what the values of the configuration are of.
    """
    return "\n".join(
        [
            about.strip(),
            "",
            "Flags",
            *flag_lines(),
            "",
            f"Settings and their values in {whose}; --config.section.key=value changes one",
            *section_lines(declaration, config, ""),
        ]
    )


def section_text(section: str, declaration: Declaration, config: ConfigDict) -> str:
    """The settings of a section and of those within it; InputError where it is none.

    section: its name, or the end of it: clip for model.clip.
    """
    sections = dict.fromkeys(name.rpartition(".")[0] for name, _ in leaves(declaration))
    named = [one for one in sections if one == section or one.endswith(f".{section}")]
    if not named:
        raise InputError(
            f"command line: --help-section {section}: there is {', '.join(filter(None, sections))}"
        )
    chosen = [section] if section in sections else named
    lines = [line for one in chosen for line in section_lines(declaration, config, one)]
    return "\n".join(lines).strip()


def section_lines(declaration: Declaration, config: ConfigDict, within: str) -> Iterator[str]:
    before = None
    for name, setting in leaves(declaration):
        section = name.rpartition(".")[0]
        if within and not f"{section}.".startswith(f"{within}."):
            continue
        if section != before:
            yield from ["", section] if section else []
            before = section
        indent = INDENT if section else ""
        value = value_text(value_at(config, name))
        yield from row(f"{indent}{name.rpartition('.')[2]} = {value}", meaning_text(setting))


def meaning_text(setting: Setting) -> str:
    """What a setting means, and in brackets which values it may have."""
    ranges = (one.text(None).removeprefix("be ") for one in setting.ranges)
    allowed = "; ".join(filter(None, ranges))
    return f"{setting.meaning} ({allowed})" if allowed else setting.meaning


def flag_lines() -> Iterator[str]:
    """The flags of the script and of this package, and those for help."""
    for module, own in sorted(flags.FLAGS.flags_by_module_dict().items()):
        if not module.startswith("dinogrl_jax") and not module.endswith(".py"):
            continue  # a library's
        for flag in own:
            default = f"; default {flag.default}" if flag.default not in ("", None, False) else ""
            name = f"[no]{flag.name}" if flag.boolean else f"{flag.name} {flag.name.upper()}"
            yield from row(f"{INDENT}--{name}", f"{flag.help}{default}")
    yield from row(f"{INDENT}--help", "this text; with --config FILE the values of that")
    yield from row(f"{INDENT}--help-section SECTION", "the settings of one section")


def row(name: str, meaning: str) -> list[str]:
    """A name and beside it, or below where the name is long, what it means."""
    width = max(shutil.get_terminal_size((100, 24)).columns, 60)
    first, *others = textwrap.wrap(meaning, width - MEANING) or [""]
    begin = (
        [f"{name:{MEANING - 1}} {first}"] if len(name) < MEANING else [name, " " * MEANING + first]
    )
    return [line.rstrip() for line in begin + [" " * MEANING + other for other in others]]


def show(text: str) -> None:
    """Print; whoever reads may stop to, as `| head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

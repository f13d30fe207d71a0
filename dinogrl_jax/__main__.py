"""The command `dinogrl_jax`, whose own commands are the scripts: dinogrl_jax train --config FILE"""

import ast
import re
import runpy
import sys
from pathlib import Path

from dinogrl_jax import __doc__ as ABOUT
from dinogrl_jax import __version__
from dinogrl_jax.interface.checks import nearest
from dinogrl_jax.interface.command_line import HELP
from dinogrl_jax.interface.config_files import ROOT
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.usage import show

EXAMPLE = re.compile(r"(: (dinogrl_jax|python) .*|[:.])$")  # behind a summary


def scripts() -> dict[str, Path]:
    """The names of the commands → what each of them runs."""
    return {path.stem: path for path in sorted((ROOT / "scripts").glob("*.py"))}


def summary(script: Path) -> str:
    """The first line of a script's text, without its example."""
    text = ast.get_docstring(ast.parse(script.read_bytes())) or ""
    return EXAMPLE.sub("", text.partition("\n")[0])


def overview() -> str:
    """What --help prints."""
    lines = [f"  {name:10} {summary(script)}" for name, script in scripts().items()]
    usage = "dinogrl_jax COMMAND --help says more about one; dinogrl_jax --version has the version"
    return "\n".join([str(ABOUT), "", "Commands", *lines, "", usage])


def command() -> None:
    """Run the script that the first word names, with the words behind it."""
    known, name = scripts(), sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in HELP:
        show(overview())
    elif name == "--version":
        show(f"dinogrl_jax {__version__}")
    elif name in known:
        del sys.argv[1]
        runpy.run_path(str(known[name]), run_name="__main__")
    else:
        near = nearest(name, list(known))
        meant = f"did you mean {near}?" if near else f"there is {', '.join(known)}"
        raise InputError(f"dinogrl_jax {name}: there is no such command; {meant}")


def main() -> None:
    run(command)


if __name__ == "__main__":
    main()

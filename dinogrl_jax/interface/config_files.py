"""Files that hold a configuration: Python with get_config(), or the config.json of a run."""

import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dinogrl_jax.interface.checks import expanded_path
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_json

PACKAGE = Path(__file__).resolve().parents[1]
# What holds scripts/ and configs/: the package where it is installed, in a clone the folder around.
ROOT = PACKAGE if (PACKAGE / "scripts").is_dir() else PACKAGE.parent
STORED = "config.json"  # in a run's folder


def read_config(name: str) -> ConfigDict:
    """The configuration of a file or of a run's folder, or of configs/<name>.py, here or shipped.

    "file.py:text" calls get_config(text).

    Raises InputError where there is none, or its code raises anything.
    """
    path, argument = config_path(name)
    path = path.absolute()
    if path.suffix == ".json":
        return stored_config(path)
    with importable(path):
        try:
            get_config = runpy.run_path(str(path))["get_config"]
            config = get_config(*argument)
        except (Exception, SystemExit) as error:  # of anybody's code
            raise InputError(f"{path}: {reason(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"{path}: get_config() returns no ConfigDict: return default(METHOD)")
    return config


def config_path(name: str) -> tuple[Path, list[str]]:
    """Where a configuration is, and what its function is called with."""
    given = Path(expanded_path(name, "--config"))
    for path in (given, given / STORED):
        if path.is_file():
            return path, []
    file, colon, argument = name.rpartition(":")
    if colon and Path(expanded_path(file, "--config")).is_file():
        return Path(expanded_path(file, "--config")), [argument]
    named = named_configs()
    if path := named.get(name.removeprefix("configs/").removesuffix(".py")):
        return path, []
    raise InputError(
        f"--config {name}: there is no such file; by name there are {', '.join(named)}"
    )


def named_configs() -> dict[str, Path]:
    """The configurations that a name is enough for: those of ./configs, and those shipped."""
    folders = (ROOT / "configs", Path("configs"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.py"))}


def run_of(name: str) -> str:
    """The folder of a run that trains what `read_config` reads: its own, or runs/<name>."""
    path, _ = config_path(name)
    return str(path.parent) if path.name == STORED else f"runs/{path.stem}"


def stored_config(path: Path) -> ConfigDict:
    """The configuration in a run's config.json; InputError where it holds none."""
    content = read_json(path)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise InputError(f"{path}: is no run's {STORED}")
    with errors_naming(path):
        return restored(config)


def restored(settings: Mapping) -> ConfigDict:
    """A configuration that was stored as JSON: lists are tuples again.

    Raises InputError, without the name of the file, for JSON that is none.
    """

    def value(stored: Any) -> Any:
        if isinstance(stored, Mapping):
            return {key: value(one) for key, one in stored.items()}
        return tuple(stored) if isinstance(stored, list) else stored

    try:
        return ConfigDict(value(settings))
    except (ValueError, TypeError) as error:  # a name with a dot, say
        raise InputError(f"is no configuration ({error})") from error


@contextlib.contextmanager
def importable(path: Path) -> Iterator[None]:
    """Configurations can import each other: `from configs.vcm import get_config`, or `from vcm`."""
    folder, before = path.resolve().parent, list(sys.path)
    sys.path += [str(folder.parent), os.getcwd(), str(ROOT), str(folder)]
    try:
        yield
    finally:
        sys.path[:] = before


def reason(error: BaseException, path: Path) -> str:
    """What somebody's code raised, in one line, with the last line of its file."""
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return "has no get_config()"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    text = " ".join(str(error).split())
    return (
        f"line {line}: {type(error).__name__}: {text}"
        if line
        else f"{type(error).__name__}: {text}"
    )

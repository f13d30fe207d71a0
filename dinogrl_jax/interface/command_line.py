"""The command line of the scripts that take a configuration file."""

import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from dinogrl_jax.interface.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "file with get_config(); --config.section.key=value changes a setting"
)
WORKDIR = flags.DEFINE_string(
    "workdir", "", "folder of the run; runs/<name of the config> if empty"
)


def config_and_workdir() -> tuple[ConfigDict, str]:
    """The configuration and the working directory; InputError if no configuration is named."""
    config = config_from_flags()
    return config, workdir_of(config)


def workdir_of(config: ConfigDict | None) -> str:
    """The working directory of a run; InputError if `config` is None, which nobody has named."""
    if config is None:
        raise InputError("command line: say which configuration, e.g. --config configs/vcm.py")
    path = flags.FLAGS["config"].config_filename
    name = path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".py")
    return WORKDIR.value or f"runs/{name}"


def config_from_flags() -> ConfigDict | None:
    """The configuration that the command line names, or None; call it once, for all flags.

    Raises InputError for an unknown flag or setting and for a value of the wrong type.
    """
    try:
        rest = flags.FLAGS(sys.argv)
        config = CONFIG.value
    except (flags.Error, AttributeError, OSError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).replace("\\n", " ").replace("\\'", "").split()).strip("'\"")
        unknown = "unknown setting " if isinstance(error, AttributeError) else ""
        raise InputError(f"command line: {unknown}{text}") from error
    if len(rest) > 1:
        raise InputError(f"command line: {rest[1]!r} is no flag; settings are --config.key=value")
    return config

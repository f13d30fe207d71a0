"""One folder per paper; `contract.Method` says what each has."""

from types import ModuleType

from ml_collections import ConfigDict

from dinogrl_jax import config
from dinogrl_jax.interface.errors import lookup
from dinogrl_jax.methods import dinogrl

METHODS = {
    "dinogrl": dinogrl,
}


def named(name: str) -> ModuleType:
    """The method of that name, which has what `contract.Method` lists.

    Raises InputError for a name that is not there.
    """
    return lookup(METHODS, name, "method")


def default(name: str) -> ConfigDict:
    """The configuration of a method as published: the shared settings and its own."""
    return ConfigDict(config.merged(config.shared(), {"method": name, **named(name).settings()}))

"""One folder per paper; `contract.Method` says what each has."""

from types import ModuleType

from ml_collections import ConfigDict

from dinogrl_jax import config
from dinogrl_jax.interface import checks, settings
from dinogrl_jax.interface.errors import lookup
from dinogrl_jax.methods import dinogrl, vld, xreid

METHODS = {
    "dinogrl": dinogrl,
    "vld": vld,
    "xreid": xreid,
}


def named(name: str) -> ModuleType:
    """The method of that name, which has what `contract.Method` lists.

    Raises InputError for a name that is not there.
    """
    return lookup(METHODS, name, "method")


def declaration(name: str) -> settings.Declaration:
    """The settings of a method: the shared ones and its own, with meanings and ranges."""
    own = {"method": name, **named(name).settings()}
    return settings.merged_declaration(config.SETTINGS, own, config.KNOWN)


def default(name: str) -> ConfigDict:
    """The configuration of a method as published."""
    return ConfigDict(settings.default_values(declaration(name)))


checks.DECLARED.update({name: declaration(name) for name in METHODS})

"""The training state: everything that a step reads and changes."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.methods.contract import Group
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.training.optimizer import group_of, optimizer


class Setup(NamedTuple):
    """What is trained, how, and where."""

    method: ModuleType
    model: nn.Module
    config: ConfigDict
    mesh: Mesh


class State(NamedTuple):
    """Everything that a step reads and changes; the data need nothing but the step's number."""

    step: Int[Array, ""]
    key: Key[Array, ""]  # of the seed; a step's own is made of both
    params: dict  # trained
    frozen: dict  # never changed
    collections: dict  # of variables beside parameters: statistics, memories of any name
    opt_state: optax.OptState
    average: dict  # of params over the steps; empty where `optimizer.average` is 0

    @property
    def trained(self) -> dict:
        """The model's variables as training applies them: all parameters, and the collections."""
        return {"params": merged(self.params, self.frozen), **self.collections}

    @property
    def variables(self) -> dict:
        """The model's variables as its users apply them, with the average where there is one."""
        return {"params": merged(self.average or self.params, self.frozen), **self.collections}

    @property
    def training(self) -> dict:
        """What a checkpoint holds beside `variables`."""
        return {"optimizer": self.opt_state, "params": self.params if self.average else {}}


def initial_state(variables: Mapping, method: ModuleType, config: ConfigDict) -> State:
    """The state before the first step, from a model's variables."""
    groups = method.groups(config)
    params, frozen = divided(variables["params"], groups)
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    opt_state = optimizer(groups, config.optimizer).init(params)
    average = jax.tree.map(jnp.copy, params) if config.optimizer.average else {}
    number, key = jnp.zeros((), jnp.int32), jax.random.key(config.seed)
    return State(number, key, params, frozen, collections, opt_state, average)


def restored_state(variables: Mapping, training: Mapping, step: int, setup: Setup) -> State:
    """The state that a checkpoint's items, which are on the mesh, are of."""
    params, frozen = divided(variables["params"], setup.method.groups(setup.config))
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    average = params if training["params"] else {}
    params = training["params"] or params
    # On the mesh as well: elsewhere, the first step would be another program than the others.
    small = jnp.asarray(step, jnp.int32), jax.random.key(setup.config.seed)
    number, key = jax.device_put(small, sharding.replicated(setup.mesh))
    return State(number, key, params, frozen, collections, training["optimizer"], average)


def state_shapes(method: ModuleType, model: nn.Module, config: ConfigDict) -> State:
    """The state's arrays without their numbers."""
    variables = variable_shapes(model, config)
    return jax.eval_shape(lambda variables: initial_state(variables, method, config), variables)


def divided(params: Mapping, groups: Sequence[Group]) -> tuple[dict, dict]:
    """Parameters that are trained, and frozen ones: each a tree of the leaves it has."""
    trained, frozen = {}, {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        group = group_of(path, groups)
        (frozen if group is None or group.rate is None else trained)[path] = leaf
    return tuple(traverse_util.unflatten_dict(flat, sep="/") for flat in (trained, frozen))


def merged(params: Mapping, others: Mapping) -> dict:
    """Two trees that share no leaf as one."""
    both = dict(params)
    for name, tree in others.items():
        both[name] = merged(params[name], tree) if name in params else tree
    return both

"""The training state and the one jitted step."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.errors import InputError, lookup
from dinogrl_jax.methods import METHODS
from dinogrl_jax.ops.layers import RECOMPUTED, apart, exact_products, recomputing
from dinogrl_jax.training import checkpoint, fine_tuning
from dinogrl_jax.training.optim import optimizer
from dinogrl_jax.weights import pretrained


class State(NamedTuple):
    """Everything that a step reads and changes; the data need nothing but the step's number."""

    step: Int[Array, ""]
    key: Key[Array, ""]  # of the seed; a step's own is made of both
    params: dict  # trained
    frozen: dict  # never changed: the backbone
    batch_stats: dict
    opt_state: optax.OptState
    average: dict  # of params over the steps; empty where `optimizer.average` is 0

    @property
    def trained(self) -> dict:
        """The model's variables as training applies them: all parameters, and the statistics."""
        return {"params": {**self.params, **self.frozen}, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict:
        """The model's variables as its users apply them, with the average where there is one."""
        params = {**self.params, **self.frozen, **self.average}
        return {"params": params, "batch_stats": self.batch_stats}

    @property
    def training(self) -> dict:
        """What a checkpoint holds beside `variables`."""
        return {"optimizer": self.opt_state, "params": self.params if self.average else {}}


def initial_variables(model: nn.Module, config: ConfigDict) -> dict:
    """Random parameters and neutral statistics of a model; a function of `config.seed`."""
    d = config.data
    frames = jnp.zeros((1, 2, 1, d.height, d.width, 3), jnp.float32)
    init = jax.jit(partial(model.init, train=False), compiler_options=compiler_options(once=True))
    return init(jax.random.key(config.seed), frames)


def initial_state(variables: dict, config: ConfigDict) -> State:
    """The state before the first step, from a model's variables."""
    params, frozen = divided(variables["params"], config)
    opt_state = optimizer(config.optimizer, config.train.steps_per_epoch).init(params)
    average = jax.tree.map(jnp.copy, params) if config.optimizer.average else {}
    number, key = jnp.zeros((), jnp.int32), jax.random.key(config.seed)
    return State(number, key, params, frozen, variables["batch_stats"], opt_state, average)


def restored_state(
    variables: dict, training: dict, step: int, config: ConfigDict, mesh: Mesh
) -> State:
    """The state that a checkpoint's items, which are on the mesh, are of."""
    params, frozen = divided(variables["params"], config)
    average = params if training["params"] else {}
    # On the mesh as well: elsewhere, the first step would be another program than the others.
    small = jnp.asarray(step, jnp.int32), jax.random.key(config.seed)
    number, key = jax.device_put(small, sharding.replicated(mesh))
    params, statistics = training["params"] or params, variables["batch_stats"]
    return State(number, key, params, frozen, statistics, training["optimizer"], average)


def divided(params: dict, config: ConfigDict) -> tuple[dict, dict]:
    """Parameters that are trained, and frozen ones."""
    frozen = {k: v for k, v in params.items() if k in METHODS[config.method].FROZEN}
    return {k: v for k, v in params.items() if k not in frozen}, frozen


def state_shapes(model: nn.Module, config: ConfigDict) -> State:
    """The state's arrays without their numbers."""
    variables = pretrained.variable_shapes(model, config)
    return jax.eval_shape(lambda variables: initial_state(variables, config), variables)


def started(
    model: nn.Module,
    config: ConfigDict,
    identities: list,
    manager: ocp.CheckpointManager,
    mesh: Mesh,
) -> tuple[State, checkpoint.Metadata]:
    """The state a run goes on from, on the mesh: its last checkpoint's, or a fresh one.

    A damaged checkpoint stops the run, or with `train.damaged_checkpoint` = "previous" is set aside
    if an earlier one is good.
    """
    policy = config.train.damaged_checkpoint
    if policy not in ("stop", "previous"):
        raise InputError(f"train.damaged_checkpoint = {policy!r}: it has to be stop or previous")
    steps, damaged = sorted(manager.all_steps(), reverse=True), []
    if not steps:
        variables = initial_variables(model, config)
        if config.pretrained.model:
            variables, lines = fine_tuning.filled(variables, identities, config)
        else:
            variables, lines = pretrained.filled(variables, config)
        print(*lines, sep="\n")
        state = sharding.spread(initial_state(variables, config), mesh)
        return state, checkpoint.Metadata(config, identities, 0, None, None)
    for step in steps:
        try:
            state, metadata = continued(model, config, identities, manager, mesh, step)
        except checkpoint.DamagedCheckpoint as error:
            if policy == "stop" or step == steps[-1]:
                raise
            print(f"{error.reason}; going back")
            damaged.append(step)
        else:
            break
    for other in damaged:
        checkpoint.set_aside(manager, other)
    print(f"continuing at step {step}")
    return state, metadata


def continued(
    model: nn.Module,
    config: ConfigDict,
    identities: list,
    manager: ocp.CheckpointManager,
    mesh: Mesh,
    step: int,
) -> tuple[State, checkpoint.Metadata]:
    """The state of a checkpoint, on the mesh; InputError where it is of other identities."""
    metadata = checkpoint.saved_metadata(manager, step)
    if metadata.identities != identities:
        raise InputError(
            f"{manager.directory}: trained on {len(metadata.identities)} identities, which are not "
            f"the {len(identities)} of data.root: restore the data set, or choose another --workdir"
        )
    shapes = state_shapes(model, config)
    variables = sharding.shapes(shapes.variables, mesh)
    training = sharding.shapes(shapes.training, mesh)
    items = checkpoint.restored(manager, step, variables=variables, training=training)
    return restored_state(**items, step=step, config=config, mesh=mesh), metadata


def due(every: int, step: int, config: ConfigDict) -> bool:
    """Whether a step is the last of an epoch whose number, from 1, is a multiple of `every`."""
    return bool(every) and step % (every * config.steps_per_epoch) == 0


def train_step(
    state: State,
    frames: Float[Array, "b m t h w 3"],
    labels: Int[Array, " b"],
    *,
    method: ModuleType,
    model: nn.Module,
    config: ConfigDict,
    whole: NamedSharding,
    rule: Callable,
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """The state after one batch, and the loss's terms.

    A loss or gradient that is not finite changes nothing but the step's number; the term `finite`
    is 0 then. whole: the sharding of an array that every device has. rule: of `layers.RECOMPUTED`.
    """

    def loss(params: dict, batch_stats: dict, frames: Array, labels: Array, key: Array) -> tuple:
        # Each device gathers the parameters once; its activations never leave it.
        given = state._replace(params=params, batch_stats=batch_stats)
        variables = jax.lax.with_sharding_constraint(given.trained, whole)
        with recomputing(rule):
            return method.training_loss(model, variables, frames, labels, key, config)

    key = jax.random.fold_in(state.key, state.step)
    with exact_products(config.model.compute_dtype):  # here, for gradients written out as well
        gradients, terms, batch_stats = averaged(
            jax.grad(loss, has_aux=True), state, frames, labels, key, config.optimizer.parts
        )
    transform = optimizer(config.optimizer, config.train.steps_per_epoch)
    updates, opt_state = transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    terms["gradient_norm"] = optax.tree.norm(gradients)
    finite = apart(jnp.isfinite(terms["total"]) & jnp.isfinite(terms["gradient_norm"]))
    average = state.average
    if average:
        average = optax.incremental_update(params, average, 1 - config.optimizer.average)
    new = state._replace(
        params=params, batch_stats=batch_stats, opt_state=opt_state, average=average
    )
    terms["finite"] = finite.astype(jnp.float32)
    chosen = jax.tree.map(lambda a, b: a if a is b else jnp.where(finite, a, b), new, state)
    return chosen._replace(step=state.step + 1), terms


def averaged(
    gradient: Callable, state: State, frames: Array, labels: Array, key: Array, parts: int
) -> tuple[dict, dict[str, Array], dict]:
    """(gradients, terms, statistics) of a batch whose `parts` are taken one after the other.

    Gradients and terms are means; each part continues the running statistics of the one before. A
    part has every parts-th pair, so that it has all identities and stays on its devices.
    """

    def of_part(batch_stats: dict, part: tuple) -> tuple:
        gradients, (terms, batch_stats) = gradient(state.params, batch_stats, *part)
        return batch_stats, (gradients, terms)

    if parts == 1:
        batch_stats, found = of_part(state.batch_stats, (frames, labels, key))
        return *found, batch_stats

    def divided(x: Array) -> Array:
        return x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def added(carry: tuple, part: tuple) -> tuple:
        batch_stats, found = of_part(carry[0], part)
        return (batch_stats, jax.tree.map(jnp.add, carry[1], found)), None

    rest = divided(frames), divided(labels), jax.random.split(key, parts)
    shapes = jax.eval_shape(of_part, state.batch_stats, jax.tree.map(lambda x: x[0], rest))[1]
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (batch_stats, total), _ = jax.lax.scan(added, (state.batch_stats, zero), rest)
    return *jax.tree.map(lambda x: x / parts, total), batch_stats


def make_step(model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(state, frames, labels) → (state, terms), compiled once, over all devices of the mesh.

    The state is donated, and placed as `sharding.of_state` says; the batch is split by pairs of
    tracklets. Statistics and losses are those of the global batch.

    Errors: InputError for an unknown `train.recompute`.
    """
    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    placed = sharding.of_state(state_shapes(model, config), mesh)
    rule = lookup(RECOMPUTED, config.train.recompute, "train.recompute")
    method = METHODS[config.method]
    step = partial(train_step, method=method, model=model, config=config, whole=whole, rule=rule)
    return jax.jit(
        step,
        in_shardings=(placed, split, split),
        out_shardings=(placed, whole),
        donate_argnums=0,
        compiler_options=compiler_options(
            sharding.platform(mesh), training=True, dtype=config.model.compute_dtype
        ),
    )

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

from dinogrl_jax import checkpoint, pretrained, sharding
from dinogrl_jax.compiling import compiler_options
from dinogrl_jax.errors import InputError
from dinogrl_jax.methods import METHODS
from dinogrl_jax.optim import optimizer


class State(NamedTuple):
    """Everything that a step reads and changes; the data need nothing but the step's number."""

    step: Int[Array, ""]
    key: Key[Array, ""]  # of the seed; a step's own is made of both
    params: dict  # trained
    frozen: dict  # never changed: the backbone
    batch_stats: dict
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        """What the model is applied with: all parameters, and the statistics."""
        return {"params": {**self.params, **self.frozen}, "batch_stats": self.batch_stats}


def initial_variables(model: nn.Module, config: ConfigDict) -> dict:
    """Random parameters and neutral statistics of a model; a function of `config.seed`."""
    d = config.data
    frames = jnp.zeros((1, 2, 1, d.height, d.width, 3), jnp.float32)
    init = jax.jit(partial(model.init, train=False))
    return init(jax.random.key(config.seed), frames)


def initial_state(variables: dict, config: ConfigDict) -> State:
    """The state before the first step, from a model's variables."""
    return state_of(variables, config)


def state_of(
    variables: dict, config: ConfigDict, opt_state: optax.OptState | None = None, step: int = 0
) -> State:
    """The state with a model's variables, divided into what is trained and what is frozen."""
    frozen_names = METHODS[config.method].FROZEN
    params = {k: v for k, v in variables["params"].items() if k not in frozen_names}
    frozen = {k: v for k, v in variables["params"].items() if k in frozen_names}
    if opt_state is None:
        opt_state = optimizer(config.optimizer, config.train.steps_per_epoch).init(params)
    number, key = jnp.asarray(step, jnp.int32), jax.random.key(config.seed)
    return State(number, key, params, frozen, variables["batch_stats"], opt_state)


def state_shapes(model: nn.Module, config: ConfigDict) -> State:
    """The state's arrays without their numbers."""
    return jax.eval_shape(lambda: initial_state(initial_variables(model, config), config))


def started(
    model: nn.Module,
    config: ConfigDict,
    identities: list,
    manager: ocp.CheckpointManager,
    mesh: Mesh,
) -> tuple[State, checkpoint.Metadata]:
    """The state a run goes on from, on the mesh: its last checkpoint's, or a fresh one."""
    last = manager.latest_step()
    if last is None:
        variables, lines = pretrained.filled(initial_variables(model, config), config)
        print(*lines, sep="\n")
        state = sharding.spread(initial_state(variables, config), mesh)
        return state, checkpoint.Metadata(config, identities, 0, None, None)
    metadata = checkpoint.saved_metadata(manager, last)
    if metadata.identities != identities:
        raise InputError(
            f"{manager.directory}: trained on {len(metadata.identities)} identities, which are not "
            f"the {len(identities)} of data.root: restore the data set, or choose another --workdir"
        )
    shapes = state_shapes(model, config)
    variables = sharding.shapes(shapes.variables, mesh)
    items = checkpoint.restored(
        manager, last, variables=variables, optimizer=sharding.shapes(shapes.opt_state, mesh)
    )
    print(f"continuing at step {last}")
    state = state_of(items["variables"], config, items["optimizer"], last)
    return state, metadata


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
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """The state after one batch, and the loss's terms.

    A loss or gradient that is not finite changes nothing but the step's number; the term `finite`
    is 0 then. whole: the sharding of an array that every device has.
    """

    def loss(params: dict, batch_stats: dict, frames: Array, labels: Array, key: Array) -> tuple:
        # Each device gathers the parameters once; its activations never leave it.
        given = state._replace(params=params, batch_stats=batch_stats)
        variables = jax.lax.with_sharding_constraint(given.variables, whole)
        return method.training_loss(model, variables, frames, labels, key, config)

    key = jax.random.fold_in(state.key, state.step)
    gradients, terms, batch_stats = averaged(
        jax.grad(loss, has_aux=True), state, frames, labels, key, config.optimizer.parts
    )
    transform = optimizer(config.optimizer, config.train.steps_per_epoch)
    updates, opt_state = transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    terms["gradient_norm"] = optax.tree.norm(gradients)
    finite = jnp.isfinite(terms["total"]) & jnp.isfinite(terms["gradient_norm"])
    old = state.params, state.batch_stats, state.opt_state
    chosen = jax.tree.map(partial(jnp.where, finite), (params, batch_stats, opt_state), old)
    terms["finite"] = finite.astype(jnp.float32)
    names = ("params", "batch_stats", "opt_state")
    return state._replace(step=state.step + 1, **dict(zip(names, chosen, strict=True))), terms


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
    """
    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    placed = sharding.of_state(state_shapes(model, config), mesh)
    step = partial(
        train_step, method=METHODS[config.method], model=model, config=config, whole=whole
    )
    return jax.jit(
        step,
        in_shardings=(placed, split, split),
        out_shardings=(placed, whole),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )

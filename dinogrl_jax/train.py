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
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax import checkpoint, pretrained, sharding
from dinogrl_jax.errors import InputError
from dinogrl_jax.methods import METHODS
from dinogrl_jax.optim import optimizer


class State(NamedTuple):
    """Everything that a step reads and changes; the data need nothing but the step's number."""

    step: Int[Array, ""]
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
    return State(jnp.asarray(step, jnp.int32), params, frozen, variables["batch_stats"], opt_state)


def _placed_shape(x: jax.ShapeDtypeStruct, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def started(
    model: nn.Module,
    config: ConfigDict,
    identities: list,
    manager: ocp.CheckpointManager,
    mesh: Mesh,
) -> tuple[State, checkpoint.Metadata]:
    """The state a run goes on from, on the mesh: its last checkpoint's, or a fresh one."""
    shapes = jax.eval_shape(lambda: initial_state(initial_variables(model, config), config))
    last = manager.latest_step()
    if last is None:
        variables, lines = pretrained.filled(initial_variables(model, config), config)
        print(*lines, sep="\n")
        state = initial_state(variables, config)
        state = jax.device_put(state, sharding.replicated(mesh))
        return state, checkpoint.Metadata(config, identities, 0, None, None)
    metadata = checkpoint.saved_metadata(manager, last)
    if metadata.identities != identities:
        raise InputError(
            f"{manager.directory}: trained on {len(metadata.identities)} identities, which are not "
            f"the {len(identities)} of data.root: restore the data set, or choose another --workdir"
        )
    place = partial(_placed_shape, sharding=sharding.replicated(mesh))
    shapes = jax.tree.map(place, shapes)
    items = checkpoint.restored(
        manager, last, variables=shapes.variables, optimizer=shapes.opt_state
    )
    state = state_of(items["variables"], config, items["optimizer"], last)
    print(f"continuing at step {last}")
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
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """The state after one batch, and the loss's terms."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss(params: dict) -> tuple:
        variables = state._replace(params=params).variables
        return method.training_loss(model, variables, frames, labels, key, config)

    gradients, (terms, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
    transform = optimizer(config.optimizer, config.train.steps_per_epoch)
    updates, opt_state = transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    terms["gradient_norm"] = optax.global_norm(gradients)
    return State(state.step + 1, params, state.frozen, batch_stats, opt_state), terms


def make_step(model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(state, frames, labels) → (state, terms), compiled once, over all devices of the mesh.

    The state is replicated and donated, the batch is split by pairs of tracklets; statistics and
    losses are those of the global batch.
    """
    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    step = partial(train_step, method=METHODS[config.method], model=model, config=config)
    return jax.jit(
        step,
        in_shardings=(whole, split, split),
        out_shardings=(whole, whole),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )


def compiler_options() -> dict[str, bool]:
    """Options of the backend that computations here are compiled with."""
    if jax.default_backend() == "cpu":
        # The default CPU scheduler keeps twice the temporaries alive (13 GiB for 48 frames).
        return {"xla_cpu_enable_concurrency_optimized_scheduler": False}
    return {}

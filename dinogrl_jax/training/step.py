"""The one jitted training step."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.ops import forms
from dinogrl_jax.ops.barrier import barrier
from dinogrl_jax.training.optimizer import optimizer
from dinogrl_jax.training.state import Setup, State, state_shapes

Terms = dict[str, Float[Array, ""]]


def make_step(method: ModuleType, model: nn.Module, config: ConfigDict, mesh: Mesh) -> Callable:
    """(state, clips, labels) → (state, terms), compiled once, over all devices of the mesh.

    The state is donated, and placed as `sharding.of_state` says; the batch is split by pairs of
    tracklets. Statistics and losses are those of the global batch.
    """
    whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
    placed = sharding.of_state(state_shapes(method, model, config), mesh)
    platform, dtype = sharding.platform(mesh), config.model.compute_dtype
    options = compiler_options(platform, dtype=dtype)
    return jax.jit(
        partial(train_step, setup=Setup(method, model, config, mesh)),
        in_shardings=(placed, split, split),
        out_shardings=(placed, whole),
        donate_argnums=0,
        compiler_options=options,
    )


def train_step(
    state: State, clips: Clips, labels: Int[Array, " b"], *, setup: Setup
) -> tuple[State, Terms]:
    """The state after one batch, and the loss's terms.

    A loss or gradient that is not finite changes nothing but the step's number; the term `finite`
    is 0 then.
    """
    method, model, config, mesh = setup

    def loss(params: dict, collections: dict, clips: Clips, labels: Array, key: Array) -> tuple:
        # Each device gathers the parameters once; its activations never leave it.
        given = state._replace(params=params, collections=collections)
        variables = jax.lax.with_sharding_constraint(given.trained, sharding.replicated(mesh))
        total, made = method.training_loss(model, variables, clips, labels, key, config)
        return total, (made.terms, {**collections, **made.collections})

    key = jax.random.fold_in(state.key, state.step)
    # Gradients that an operation has written out are traced here as well.
    with sharding.using(mesh), forms.configured(config, sharding.platform(mesh)):
        gradient, count = jax.grad(loss, has_aux=True), config.optimizer.micro_batches
        gradients, terms, collections = mean_gradients(gradient, state, clips, labels, key, count)
        terms["gradient_norm"] = optax.tree.norm(gradients)
        finite = barrier(jnp.isfinite(terms["total"]) & jnp.isfinite(terms["gradient_norm"]))
        transform = optimizer(method.groups(config), config.optimizer)
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params, average = optax.apply_updates(state.params, updates), state.average
        if average:
            average = optax.incremental_update(params, average, 1 - config.optimizer.average)
    changed = {"params": params, "opt_state": opt_state, "average": average}
    new = state._replace(collections=collections, **changed)
    terms["finite"] = finite.astype(jnp.float32)
    chosen = jax.tree.map(lambda a, b: a if a is b else jnp.where(finite, a, b), new, state)
    return chosen._replace(step=state.step + 1), terms


def mean_gradients(
    gradient: Callable, state: State, clips: Clips, labels: Array, key: Array, micro_batches: int
) -> tuple[dict, Terms, dict]:
    """(gradients, terms, collections) of a batch whose micro-batches come one after the other.

    Gradients and terms are means; each micro-batch goes on with the collections of the one before.
    The n-th has every n-th pair, so that it has all identities and stays on its devices.
    """

    def of_one(collections: dict, micro_batch: tuple) -> tuple:
        gradients, (terms, collections) = gradient(state.params, collections, *micro_batch)
        return collections, (gradients, terms)

    if micro_batches == 1:
        collections, found = of_one(state.collections, (clips, labels, key))
        return *found, collections

    def dealt(x: Array) -> Array:
        return x.reshape(len(x) // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)

    def added(carry: tuple, micro_batch: tuple) -> tuple:
        collections, found = of_one(carry[0], micro_batch)
        return (collections, jax.tree.map(jnp.add, carry[1], found)), None

    rest = *jax.tree.map(dealt, (clips, labels)), jax.random.split(key, micro_batches)
    first = jax.tree.map(lambda x: x[0], rest)
    shapes = jax.eval_shape(of_one, state.collections, first)[1]
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (collections, total), _ = jax.lax.scan(added, (state.collections, zero), rest)
    return *jax.tree.map(lambda x: x / micro_batches, total), collections

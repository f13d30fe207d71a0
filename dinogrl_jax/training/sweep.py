"""The pass over all training tracklets that some methods make before an epoch."""

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.data.batches import EvaluationBatch
from dinogrl_jax.devices import sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.methods.contract import Clips, Sweep
from dinogrl_jax.ops import forms
from dinogrl_jax.ops.precision import exact_products
from dinogrl_jax.training.state import State, state_shapes


class Compiled(NamedTuple):
    """The functions of a sweep, jitted over the mesh; params: all of them, as training has them."""

    begin: Callable  # (params, collections) → gathered
    step: Callable  # (params, collections, gathered, clips, labels, valid) → (collections, …)
    end: Callable  # (params, collections, gathered) → collections


class Sweeper:
    """Makes the pass before an epoch, where the method has one; equal sweeps are compiled once.

    batches: size → an iterable over all training tracklets, as `pipeline.sweep_batches` makes it.
    """

    def __init__(
        self,
        method: ModuleType,
        model: nn.Module,
        config: ConfigDict,
        mesh: Mesh,
        batches: Callable[[int], Any],
    ) -> None:
        self.sweep_before = functools.partial(method.before_epoch, model, config)
        self.config, self.mesh, self.batches = config, mesh, batches
        self.placed = sharding.of_state(state_shapes(method, model, config).collections, mesh)
        self.compiled = functools.cache(self._compiled)

    def __call__(self, state: State, epoch: int) -> State:
        """The state with which an epoch, counted from 0, begins."""
        sweep = self.sweep_before(epoch)
        if sweep is None:
            return state
        functions = self.compiled(sweep)
        with self.batches(sweep.tracklets) as batches:
            return swept_state(state, functions, batches, self.mesh)

    def _compiled(self, sweep: Sweep) -> Compiled:
        config, mesh = self.config, self.mesh
        whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)

        def variables(params: dict, collections: dict) -> dict:
            return jax.lax.with_sharding_constraint({"params": params, **collections}, whole)

        def begin(params: dict, collections: dict) -> Any:
            return sweep.begin(variables(params, collections))

        def step(params: dict, collections: dict, gathered: Any, *batch: Any) -> tuple[dict, Any]:
            changed, gathered = sweep.step(variables(params, collections), gathered, *batch)
            return {**collections, **changed}, gathered

        def end(params: dict, collections: dict, gathered: Any) -> dict:
            return {**collections, **sweep.end(variables(params, collections), gathered)}

        def jitted(function: Callable, results: Any, arguments: Any = None) -> Callable:
            def traced(*given: Any) -> Any:
                with (
                    exact_products(config.model.compute_dtype),
                    forms.using(config.ops.forms, sharding.platform(mesh)),
                ):
                    return function(*given)

            return jax.jit(
                traced,
                in_shardings=arguments,
                out_shardings=results,
                compiler_options=compiler_options(sharding.platform(mesh), training=True),
            )

        batch = (split,) * 3  # clips, labels, valid
        return Compiled(
            jitted(begin, whole),
            jitted(step, (self.placed, whole), (None, None, None, *batch)),
            jitted(end, self.placed),
        )


def swept_state(
    state: State, functions: Compiled, batches: Iterable[EvaluationBatch], mesh: Mesh
) -> State:
    """The state after a pass over batches, which changes collections alone."""
    params, collections = state.trained["params"], state.collections
    gathered = functions.begin(params, collections)
    with Progress("sweep", len(batches), "batches") as progress:
        for batch in progress.over(batches):
            arrays = batch.frames, batch.cameras[:, None], batch.labels, batch.valid
            frames, cameras, *rest = sharding.placed(arrays, mesh)
            clips = Clips(frames, cameras, (batch.modality,))
            jax.block_until_ready(gathered)  # else batches pile up on the devices
            collections, gathered = functions.step(params, collections, gathered, clips, *rest)
    return state._replace(collections=functions.end(params, collections, gathered))

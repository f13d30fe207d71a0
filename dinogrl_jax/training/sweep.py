"""The pass over all training tracklets that some methods make before an epoch."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from dinogrl_jax.devices import sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.methods.contract import Clips, Sweep
from dinogrl_jax.ops import forms
from dinogrl_jax.training.state import Setup, State, state_shapes


class Sweeper:
    """Makes the pass before an epoch, where the method has one; equal sweeps are compiled once.

    batches: size → an iterable over all training tracklets, as `pipeline.sweep_batches` makes it;
    it is told the epoch by name where the method wants what is drawn for each.
    """

    def __init__(self, setup: Setup, batches: Callable[..., Any]) -> None:
        self.setup, self.batches = setup, batches
        self.compiled = functools.cache(self._compiled)

    def __call__(
        self, state: State, epoch: int, between: Callable[[], None] = lambda: None
    ) -> State:
        """The state with which an epoch, counted from 0, begins: only collections change.

        between: called after each batch; it may raise Stopped, and the state given is as it was.
        """
        method, model, config, mesh = self.setup
        sweep = method.before_epoch(model, config, epoch)
        if sweep is None:
            return state
        begin, step, end = self.compiled(sweep)
        params, collections = state.trained["params"], state.collections
        gathered = begin(params, collections)
        drawn = {"epoch": epoch} if sweep.random else {}
        with (
            self.batches(sweep.tracklets, **drawn) as batches,
            Progress("sweep", len(batches), "batches") as progress,
        ):
            for batch in progress.over(batches):
                arrays = batch.frames, batch.cameras[:, None], batch.labels, batch.valid
                frames, cameras, *rest = sharding.placed(arrays, mesh)
                clips = Clips(frames, cameras, (batch.modality,))
                jax.block_until_ready(gathered)  # else batches pile up on the devices
                collections, gathered = step(params, collections, gathered, clips, *rest)
                between()
        return state._replace(collections=end(params, collections, gathered))

    def _compiled(self, sweep: Sweep) -> tuple[Callable, Callable, Callable]:
        """The functions of a sweep over the mesh, of (params, collections, …) each.

        Of collections they take and return all; params are all of them, as training has them.
        """
        method, model, config, mesh = self.setup
        whole, split = sharding.replicated(mesh), sharding.by_tracklet(mesh)
        placed = sharding.of_state(state_shapes(method, model, config).collections, mesh)

        def step(variables: dict, collections: dict, *given: Any) -> tuple[dict, Any]:
            changed, gathered = sweep.step(variables, *given)
            return {**collections, **changed}, gathered

        def end(variables: dict, collections: dict, gathered: Any) -> dict:
            return {**collections, **sweep.end(variables, gathered)}

        def jitted(function: Callable, results: Any, arguments: Any = None) -> Callable:
            def traced(params: dict, collections: dict, *given: Any) -> Any:
                variables = {"params": params, **collections}
                variables = jax.lax.with_sharding_constraint(variables, whole)
                with forms.configured(config, sharding.platform(mesh)):
                    return function(variables, collections, *given)

            platform, dtype = sharding.platform(mesh), config.model.compute_dtype
            options = compiler_options(platform, dtype=dtype)
            shardings = {"in_shardings": arguments, "out_shardings": results}
            return jax.jit(traced, **shardings, compiler_options=options)

        arguments = (None, None, None, split, split, split)  # the last are clips, labels, valid
        begin = jitted(lambda variables, _: sweep.begin(variables), whole)
        return begin, jitted(step, (placed, whole), arguments), jitted(end, placed)

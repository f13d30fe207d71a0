"""Steps of an optimiser on a loss, which is all that a pretraining is."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import optax

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.interface.progress import Progress


def trained_params(
    params: Any, loss: Callable, batches: Iterable[tuple], steps: int, optimizer: Any, seed: int
) -> Any:
    """Parameters after so many steps, on the host; every hundredth loss is printed.

    loss: (parameters, key of the step's draws, *batch) → a number.
    """

    @partial(jax.jit, compiler_options=compiler_options())
    def step(params, state, key, *batch):
        value, gradients = jax.value_and_grad(loss)(params, key, *batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, key = optimizer.init(params), jax.random.key(seed)
    with Progress("pretraining", steps, "steps") as progress:
        for number, batch in progress.over(zip(range(steps), batches, strict=False)):
            fold = jax.random.fold_in(key, number)
            params, state, value = step(params, state, fold, *batch)
            if number % 100 == 99:
                print(f"step {number + 1}  loss {float(value):.4f}", flush=True)
    return jax.device_get(params)

"""Where one computation ends before the next begins."""

import jax
from jaxtyping import PyTree

from dinogrl_jax.ops.forms import operation


@operation
def barrier(x: PyTree) -> PyTree:
    """x itself."""
    return x


@barrier.form("cpu")
def computed_first(x: PyTree) -> PyTree:
    """All of x is computed before anything that reads any of it: once, not by each reader."""
    return jax.lax.optimization_barrier(x)

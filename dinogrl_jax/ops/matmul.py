"""Products of matrices."""

import jax
from jaxtyping import Array, Float

from dinogrl_jax.ops.barrier import barrier
from dinogrl_jax.ops.forms import operation


@operation
def matmul(x: Float[Array, "*n c"], kernel: Float[Array, "c d"]) -> Float[Array, "*n d"]:
    """x @ kernel."""
    return x @ kernel


@matmul.form("cpu")
@jax.custom_vjp
def matmul_with_cheap_gradient(x: Array, kernel: Array) -> Array:
    """x @ kernel, whose kernel's gradient is xᵀ·g of two matrices, the narrower one in front.

    JAX's own gradient has both transposed in memory first, and XLA would compute g a second time.
    """
    return x @ kernel


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    g = barrier(g)
    rows, columns = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    over_rows = (((0,), (0,)), ((), ()))
    if rows.shape[1] <= columns.shape[1]:
        of_kernel = jax.lax.dot_general(rows, columns, over_rows)
    else:
        of_kernel = barrier(jax.lax.dot_general(columns, rows, over_rows)).T
    return g @ kernel.T, of_kernel


matmul_with_cheap_gradient.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _backward)

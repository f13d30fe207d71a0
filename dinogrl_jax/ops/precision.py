"""Types of numbers: what statistics are of, and how exact products are."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp


def accumulation_dtype(dtype) -> jnp.dtype:
    """The type of statistics and losses: float32, or float64 where the computation is."""
    return jnp.promote_types(dtype, jnp.float32)


def half_precision(dtype) -> bool:
    """Whether numbers have 16 bits or fewer: bfloat16, float16."""
    return jnp.finfo(dtype).bits <= 16


@contextlib.contextmanager
def exact_products(dtype) -> Iterator[None]:
    """Products of float32 are not rounded to TensorFloat-32 (GPU) or bfloat16 (TPU) first.

    They are if `jax_default_matmul_precision` says so, or in half precision anyway.
    """
    asked = jax.config.jax_default_matmul_precision
    with jax.default_matmul_precision(asked if asked or half_precision(dtype) else "highest"):
        yield

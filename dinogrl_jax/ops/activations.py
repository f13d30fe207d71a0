"""Activations."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.precision import accumulation_dtype


@operation
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·Φ(x), exact. Source: torch.nn.GELU."""
    return jax.nn.gelu(x.astype(accumulation_dtype(x.dtype)), approximate=False).astype(x.dtype)


@gelu.form("cpu", "gpu")
@jax.custom_vjp
def gelu_by_erf(x: Array) -> Array:
    """By the error function; JAX takes its complement, which costs twice as much.

    Training keeps x alone.
    """
    wide = x.astype(accumulation_dtype(x.dtype))
    return (wide * _normal_distribution(wide)).astype(x.dtype)


def _normal_distribution(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def _gelu_backward(x: Array, g: Array) -> tuple[Array]:
    wide = x.astype(accumulation_dtype(x.dtype))
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * np.pi) ** -0.5
    return ((g * (_normal_distribution(wide) + wide * density)).astype(x.dtype),)


gelu_by_erf.defvjp(lambda x: (gelu_by_erf(x), x), _gelu_backward)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·σ(1.702·x), which OpenAI's CLIP was trained with. Source: openai/CLIP, clip/model.py."""
    wide = x.astype(accumulation_dtype(x.dtype))
    return (wide * jax.nn.sigmoid(1.702 * wide)).astype(x.dtype)


@operation
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0)."""
    return jax.nn.relu(x)


@relu.form("gpu")
@jax.custom_vjp
def relu_by_result(x: Array) -> Array:
    """Training keeps the result, which the next layer keeps anyway, and a product ends with it."""
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = relu_by_result(x)
    # Apart, or XLA would look at x again, which has to be in memory then.
    return y, jax.lax.optimization_barrier(y)


relu_by_result.defvjp(_relu_forward, lambda y, g: (jnp.where(y > 0, g, 0),))

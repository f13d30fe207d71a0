"""Blocks that several models share."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree


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


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·Φ(x), exact. By the error function: its complement, in JAX's, takes a GPU twice as long.

    Training keeps x alone. Source: torch.nn.GELU.
    """
    wide = x.astype(accumulation_dtype(x.dtype))
    return (wide * _gaussian(wide)).astype(x.dtype)


def _gaussian(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def _gelu_backward(x: Array, g: Array) -> tuple[Array]:
    wide = x.astype(accumulation_dtype(x.dtype))
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * np.pi) ** -0.5
    # Apart, or XLA would keep the gradient in float32.
    return (jax.lax.optimization_barrier((g * (_gaussian(wide) + wide * density)).astype(x.dtype)),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


@jax.custom_vjp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), of which training keeps the result alone, so that a product may end with it."""
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = kept = relu(x)
    if _keeps_everything():
        # Apart, or XLA would look at x again, which a GPU's product then has to write as well.
        kept = jax.lax.platform_dependent(y, cuda=jax.lax.optimization_barrier, default=lambda y: y)
    return y, kept


relu.defvjp(_relu_forward, lambda y, g: (jnp.where(y > 0, g, 0),))


# What the backward pass computes again, and by which rule the rest is kept: least memory first.
# Moments of normalisations are always kept: they are small, and take two passes over their input.
_MOMENTS = jax.checkpoint_policies.save_only_these_names("moments")
_PRODUCTS = jax.checkpoint_policies.dots_saveable  # of matrices and convolutions
RECOMPUTED = {
    "blocks": _MOMENTS,
    "elementwise": jax.checkpoint_policies.save_from_both_policies(_MOMENTS, _PRODUCTS),
    "nothing": jax.checkpoint_policies.everything_saveable,
}
_rule = contextvars.ContextVar("rule", default=RECOMPUTED["blocks"])


@contextlib.contextmanager
def recomputing(rule: Callable) -> Iterator[None]:
    """What is traced inside follows a rule of RECOMPUTED; "blocks" without it."""
    before = _rule.set(rule)
    try:
        yield
    finally:
        _rule.reset(before)


def _keeps_everything() -> bool:
    return _rule.get() is RECOMPUTED["nothing"]


def recomputed(call: Callable, *arrays: Any, **options: Any) -> Any:
    """call(*arrays, **options) of a module or its method, of which training keeps the input alone.

    The backward pass computes again what it needs of the inside, as `recomputing` says. Worth it
    also where nothing is inside (a convolution): what the backward pass makes of the input is not
    made early.
    """
    if _keeps_everything():
        return call(*arrays, **options)
    method = call.__call__ if isinstance(call, nn.Module) else call

    def of_module(module: nn.Module, *arrays: Any) -> Any:
        return method.__func__(module, *arrays, **options)

    return nn.remat(of_module, policy=_rule.get())(method.__self__, *arrays)


def apart(x: PyTree) -> PyTree:
    """x itself, all of which a CPU computes before it begins with what reads any of it."""
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


@jax.custom_vjp
def apart_backwards(x: Array) -> Array:
    """x itself, whose gradient is `apart`: for the result of a matrix product.

    XLA on a CPU would compute the gradient again, transposed, for that of the product's kernel, in
    a loop that leaps through memory.
    """
    return x


apart_backwards.defvjp(lambda x: (x, None), lambda _, gradient: (apart(gradient),))


@jax.custom_vjp
def product(x: Float[Array, "*n c"], kernel: Float[Array, "c d"]) -> Float[Array, "*n d"]:
    """x @ kernel, whose kernel's gradient a CPU computes without copies of x or of y's gradient.

    Of the two, the product reads one number by number: here the narrower one. JAX's own derivative
    has both transposed in memory first.
    """
    return x @ kernel


def _product_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    return g @ kernel.T, product_over_rows(x, g)


def product_over_rows(x: Float[Array, "*n c"], g: Float[Array, "*n d"]) -> Float[Array, "c d"]:
    """xᵀ·g, the sum over all positions of the products of their c with their d values."""
    x, g = (y.reshape(-1, y.shape[-1]) for y in (x, g))
    over_rows = (((0,), (0,)), ((), ()))
    if x.shape[1] <= g.shape[1]:
        return jax.lax.dot_general(x, g, over_rows)
    return apart(jax.lax.dot_general(g, x, over_rows)).T


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


def in_turns(call: Callable[[PyTree], PyTree], x: PyTree, at_once: int) -> PyTree:
    """call(x), by `at_once` entries of each device or the next fewer that divide theirs.

    For processors: what is between stays in the cache. The leading axis of all arrays, whose
    entries call treats alike, is in the order of the devices.
    """
    length = len(jax.tree.leaves(x)[0])
    devices = math.gcd(length, jax.device_count())
    own = length // devices
    few = dividing(own, at_once)

    def dealt(x: Array) -> Array:  # [turn, devices · few, ...]: entries stay where they are
        x = x.reshape(devices, own // few, few, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(own // few, devices * few, *x.shape[3:])

    def gathered(y: Array) -> Array:
        y = y.reshape(own // few, devices, few, *y.shape[2:]).swapaxes(0, 1)
        return y.reshape(length, *y.shape[3:])

    call = jax.jit(call)  # traced once
    # What is made is zero at first, when x is known: XLA would set aside its memory far earlier.
    zero, x = jax.lax.optimization_barrier((jnp.zeros(()), jax.tree.map(dealt, x)))
    one = jax.eval_shape(call, jax.tree.map(lambda x: x[0], x))
    made = jax.tree.map(lambda y: jnp.full((own // few, *y.shape), zero, y.dtype), one)

    def turn(i: Array, made: PyTree) -> PyTree:
        y = call(jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), x))
        put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return jax.tree.map(put, made, y)

    return jax.tree.map(gathered, jax.lax.fori_loop(0, own // few, turn, made))


def dividing(count: int, most: int) -> int:
    """The largest number that divides count, of those up to `most` (at least 1)."""
    return next(n for n in range(max(min(most, count), 1), 0, -1) if count % n == 0)

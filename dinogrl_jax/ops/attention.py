"""Attention of queries to keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dinogrl_jax.ops.chunks import map_in_chunks
from dinogrl_jax.ops.forms import operation
from dinogrl_jax.ops.precision import accumulation_dtype

WEIGHTS = 2**17  # of heads, at once on a CPU; two heads have them anyway


@operation
def attention(
    q: Float[Array, "f n h d"],
    k: Float[Array, "f m h d"],
    v: Float[Array, "f m h d"],
    causal: bool = False,
) -> Float[Array, "f n h d"]:
    """softmax(q·kᵀ/√d)·v of every head h; the softmax at least in float32.

    causal: a query sees the keys up to its own place.
    """
    logits = jnp.einsum("fqhd,fkhd->fhqk", q, k) * q.shape[-1] ** -0.5
    logits = logits.astype(accumulation_dtype(q.dtype))
    if causal:
        logits = jnp.where(jnp.tri(q.shape[1], k.shape[1], dtype=bool), logits, -jnp.inf)
    weights = jax.nn.softmax(logits)
    return jnp.einsum("fhqk,fkhd->fqhd", weights.astype(q.dtype), v)


@attention.form("cpu")
def attention_by_heads(q: Array, k: Array, v: Array, causal: bool = False) -> Array:
    """Few heads of each device at a time: their n·m weights stay in the cache.

    With the keys in front the softmax adds up whole rows, and divides after the second product. A
    gradient makes the weights again, which would be in memory for all heads otherwise.
    """
    scale = q.shape[-1] ** -0.5
    seen = jnp.tri(q.shape[1], k.shape[1], dtype=bool).T  # with the keys in front

    def of_heads(qkv: tuple[Array, Array, Array]) -> Array:
        q, k, v = qkv
        logits = jnp.einsum("fkd,fqd->fkq", k, q * scale).astype(accumulation_dtype(q.dtype))
        if causal:
            logits = jnp.where(seen, logits, -jnp.inf)
        weights = jnp.exp(logits - logits.max(1, keepdims=True))
        y = jnp.einsum("fkq,fkd->fqd", weights.astype(q.dtype), v)
        return (y / weights.sum(1)[:, :, None]).astype(q.dtype)

    f, n, h, d = q.shape
    heads = tuple(x.swapaxes(1, 2).reshape(f * h, *x.shape[1:4:2]) for x in (q, k, v))
    of_heads = jax.checkpoint(of_heads, prevent_cse=False)
    at_once = max(WEIGHTS // (n * k.shape[1]), 2)
    return map_in_chunks(of_heads, heads, at_once).reshape(f, h, n, d).swapaxes(1, 2)


def _has_cudnn(q: Array, *_, **__) -> bool:
    device = jax.local_devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    return cuda and q.dtype == jnp.bfloat16 and float(device.compute_capability) >= 8


@attention.form("gpu", when=_has_cudnn)
def attention_by_cudnn(q: Array, k: Array, v: Array, causal: bool = False) -> Array:
    """cuDNN's, which never has the weights in memory."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn")

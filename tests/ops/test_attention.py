"""Attention on a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.ops.attention import _has_cudnn, attention, attention_by_cudnn


@pytest.mark.parametrize("causal", [False, True])
def test_cudnns_attention_is_attention(causal):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 513, 6, 64), jnp.bfloat16)
    if not _has_cudnn(q):
        pytest.skip("cuDNN's attention needs a GPU")
    exact = attention.definition(*(x.astype(jnp.float32) for x in (q, k, v)), causal)
    # bfloat16 rounds to 2^-9 = 0.002 of each weight and of the result.
    made = attention_by_cudnn(q, k, v, causal).astype(jnp.float32)
    np.testing.assert_allclose(made, exact, atol=0.005)

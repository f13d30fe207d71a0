"""Pooling with ties and infinities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.ops.convolution import max_pool, max_pool_to_the_first


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 2)])
def test_ties_go_where_the_library_has_them_go(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (2, *size, 3)).astype(np.float32))  # many ties
    pooled, pull_back = jax.vjp(max_pool_to_the_first, x)
    expected, expected_pull_back = jax.vjp(max_pool.definition, x)
    g = jnp.asarray(rng.integers(-9, 10, pooled.shape).astype(np.float32))  # sums are exact
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(pull_back(g)[0], expected_pull_back(g)[0])


def test_the_maximum_of_minus_infinity():
    x = jnp.full((1, 4, 4, 1), -jnp.inf)
    assert jnp.isneginf(max_pool_to_the_first(x)).all()

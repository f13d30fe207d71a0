"""Pooling with ties and infinities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.ops.convolution import max_pool, max_pool_to_the_first, maximum_over


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


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_gradient_of_a_maximum_goes_to_the_first_of_the_largest(axis):
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (5, 4, 6)).astype(np.float32)  # many ties
    y, pull_back = jax.vjp(lambda x: maximum_over(x, axis), jnp.asarray(x))
    np.testing.assert_array_equal(y, x.max(axis))
    g = rng.standard_normal(y.shape).astype(np.float32)
    expected = np.zeros_like(x)
    np.put_along_axis(expected, x.argmax(axis, keepdims=True), np.expand_dims(g, axis), axis)
    np.testing.assert_array_equal(pull_back(jnp.asarray(g))[0], expected)


def test_the_maximum_of_what_is_minus_infinity_or_half_as_wide():
    assert jnp.isneginf(maximum_over(jnp.full((3, 2), -jnp.inf), 0)).all()
    x = jnp.asarray([[1.0078125, -3.0], [0.5, -2.0]], jnp.bfloat16)
    np.testing.assert_array_equal(maximum_over(x, 0), x.max(0))
    assert maximum_over(x, 0).dtype == jnp.bfloat16

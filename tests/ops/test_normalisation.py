"""Moments of selections."""

import jax
import jax.numpy as jnp
import numpy as np

from dinogrl_jax.ops.normalisation import moments


def test_moments_are_numpys_of_what_is_selected():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5))
    mask = jax.random.bernoulli(jax.random.key(1), shape=(3, 4))
    found, kept = moments(x, mask), np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.var, kept.var(0), rtol=1e-5)
    assert found.count == len(kept)


def test_float32_keeps_the_variance_far_from_zero():
    x = 1000 + jax.random.normal(jax.random.key(0), (4, 5, 6, 7))
    exact = np.asarray(x, np.float64)
    # float32: 6e-8 of the mean, and a sum's rounding; E[x²] − E[x]² would be wrong by 0.1.
    np.testing.assert_allclose(moments(x).mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(moments(x).var, exact.var((0, 1, 2)), rtol=1e-3)


def test_moments_of_nothing_are_zero():
    found = moments(jnp.ones((4, 5, 3)), jnp.zeros((4, 5), bool))
    assert found.count == 0 and not found.mean.any() and not found.var.any()

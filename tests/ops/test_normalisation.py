"""Moments of selections."""

import jax
import jax.numpy as jnp
import numpy as np

from dinogrl_jax.ops.normalisation import moments, moments_in_one_pass


def test_moments_are_numpys_of_what_is_selected():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5))
    mask = jax.random.bernoulli(jax.random.key(1), shape=(3, 4))
    found, kept = moments(x, mask), np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.var, kept.var(0), rtol=1e-5)
    assert found.count == len(kept)


def test_one_pass_in_float32_keeps_the_variance_far_from_zero():
    x = 1000 + jax.random.normal(jax.random.key(0), (4, 5, 6, 7))
    one, two = moments_in_one_pass(x), moments.definition(x)
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-6)  # float32: 6e-8, and a sum's rounding
    # E[x²] − E[x]² would be wrong by 0.1: 1e6 is rounded to 0.06.
    np.testing.assert_allclose(one.var, two.var, rtol=1e-3)


def test_the_variance_is_not_negative():
    same = jnp.full((4, 5, 3), 0.1)
    assert (moments_in_one_pass(same).var >= 0).all()

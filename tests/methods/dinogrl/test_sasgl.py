"""Maps at twice the tokens' rows and columns."""

from functools import partial

import jax
import numpy as np
import pytest

from dinogrl_jax.methods.dinogrl import sasgl
from dinogrl_jax.ops.normalisation import moments
from dinogrl_jax.ops.resize import bilinear_matrix, resized


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_doubling_is_bilinear_resizing(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    wanted = jax.random.normal(jax.random.key(1), (2, 2 * size[0], 2 * size[1], 3))
    rows, columns = (bilinear_matrix(n, 2 * n, x.dtype) for n in size)
    expected, back = jax.vjp(partial(resized, rows=rows, columns=columns), x)
    doubled, own_back = jax.vjp(sasgl.doubled, x)
    # Float32 sums of a few numbers near 1, in another order; TPUs have the second of each.
    for found in (doubled, sasgl._doubled_by_products(x)):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for found in (own_back(wanted)[0], sasgl._halved_by_products(wanted)):
        np.testing.assert_allclose(found, back(wanted)[0], atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_moments_of_a_doubled_map_without_it(share):
    x = 5 + jax.random.normal(jax.random.key(0), (3, 4, 6, 8))
    selected = jax.random.bernoulli(jax.random.key(1), share, (3, 8, 12))
    found, expected = sasgl.doubled_moments(x, selected), moments(sasgl.doubled(x), selected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # float32 sums in another order

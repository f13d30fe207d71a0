"""Activations against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dinogrl_jax.ops.activations import gelu, gelu_by_erf, quick_gelu


@pytest.mark.parametrize("form", [gelu.definition, gelu_by_erf])
def test_gelu_is_pytorchs(form):
    x = np.linspace(-8, 8, 1001)
    given = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.gelu(given)
    expected.sum().backward()
    with jax.enable_x64(True):
        made, gradient = form(jnp.asarray(x)), jax.grad(lambda x: form(x).sum())(jnp.asarray(x))
    # Float64: 1 + erf(x) cancels to 1e-16 of 1 where x is far below zero.
    np.testing.assert_allclose(made, expected.detach(), atol=1e-14)
    np.testing.assert_allclose(gradient, given.grad, atol=1e-14)


def test_quick_gelu_is_the_published_one():
    x = np.linspace(-8, 8, 1001)
    given = torch.tensor(x)
    with jax.enable_x64(True):
        made = quick_gelu(jnp.asarray(x))
    np.testing.assert_allclose(made, given * torch.sigmoid(1.702 * given), atol=1e-14)  # float64

"""Layers against PyTorch's, and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dinogrl_jax.models.layers import BatchNorm, ConvNorm, LayerNorm
from dinogrl_jax.ops import forms


def test_nothing_selected_leaves_the_running_statistics():
    norm, x = BatchNorm(4), jnp.ones((2, 3, 4))
    variables = norm.init(jax.random.key(0), x, train=True)
    mask = jnp.zeros((2, 3), bool)
    y, changed = norm.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
    assert jnp.isfinite(y).all()
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, changed["batch_stats"], variables["batch_stats"])
    )


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_is_pytorchs(affine, form):
    x = 50 + jax.random.normal(jax.random.key(0), (3, 4, 64))
    norm = LayerNorm(jnp.dtype("float32"), affine)
    params = {"scale": jnp.linspace(0.5, 2, 64), "bias": jnp.linspace(-1, 1, 64)} if affine else {}
    pair = [torch.tensor(np.asarray(p)) for p in params.values()]
    expected = torch.nn.functional.layer_norm(torch.tensor(np.asarray(x)), (64,), *pair, eps=1e-6)
    with forms.using(form, "gpu"):
        made = norm.apply({"params": params}, x)
    np.testing.assert_allclose(made, expected, atol=1e-4)  # float32: 50 is rounded to 4e-6


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("train", [True, False])
def test_a_convolution_and_its_norm_are_pytorchs(train, form):
    """Results and running statistics, unbiased variance among them."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((4, 6, 5, 3)), rng.standard_normal((3, 3, 3, 7))
    scale, bias, mean = rng.standard_normal((3, 7))
    var = rng.uniform(0.5, 2, 7)
    conv = torch.nn.Conv2d(3, 7, 3, stride=2, padding=1, bias=False).double()
    norm = torch.nn.BatchNorm2d(7).double().train(train)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        names = ("weight", "bias", "running_mean", "running_var")
        for name, value in zip(names, (scale, bias, mean, var), strict=True):
            getattr(norm, name).copy_(torch.tensor(value))
        expected = norm(conv(torch.tensor(x.transpose(0, 3, 1, 2)))).numpy()
    with jax.enable_x64(True), forms.using(form, "cpu"):
        variables = {
            "params": {"kernel": kernel, "norm": {"scale": scale, "bias": bias}},
            "batch_stats": {"norm": {"mean": mean, "var": var}},
        }
        variables = jax.tree.map(jnp.asarray, variables)
        layer = ConvNorm(7, 3, 2, jnp.dtype("float64"))
        made, changed = layer.apply(variables, jnp.asarray(x), train=train, mutable="batch_stats")
    # Float64: rounding of sums of 27 products.
    np.testing.assert_allclose(made, expected.transpose(0, 2, 3, 1), atol=1e-11)
    after = (changed["batch_stats"] if train else variables["batch_stats"])["norm"]
    np.testing.assert_allclose(after["mean"], norm.running_mean, atol=1e-11)
    np.testing.assert_allclose(after["var"], norm.running_var, atol=1e-11)

"""Normalisation over a batch, products, and what is computed in turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dinogrl_jax.ops import layers, normalisation
from dinogrl_jax.ops.layers import exact_products, gelu, in_turns, product
from dinogrl_jax.ops.normalisation import BatchNorm, LayerNorm, batch_normalised, moments

SELECTIONS = ("everything", "some", "nothing")


def selection(kind: str, shape: tuple[int, ...]) -> jax.Array | None:
    if kind == "everything":
        return None
    return jax.random.bernoulli(jax.random.key(1), 0.4 if kind == "some" else 0.0, shape)


@pytest.fixture
def numbers():
    with jax.enable_x64(True):
        x = 3 + jax.random.normal(jax.random.key(0), (4, 5, 6, 7), jnp.float64)
        yield x, jnp.linspace(0.5, 2, 7), jnp.linspace(-1, 1, 7)


@pytest.mark.parametrize("kind", SELECTIONS)
def test_the_gradient_is_that_of_the_formula(kind, numbers):
    x, scale, bias = numbers
    mask = selection(kind, x.shape[:-1])
    wanted = jax.random.normal(jax.random.key(2), x.shape, x.dtype)

    def formula(x, scale, bias):
        weight = jnp.ones(x.shape[:-1]) if mask is None else mask.astype(x.dtype)
        count = jnp.maximum(weight.sum(), 1)
        mean = jnp.einsum("fhw,fhwc->c", weight, x) / count
        var = jnp.einsum("fhw,fhwc->c", weight, jnp.square(x - mean)) / count
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    def loss(normalised):
        return lambda *given: (normalised(*given) * wanted).sum()

    made = jax.grad(loss(lambda x, s, b: batch_normalised(x, mask, s, b, 1e-5)[0]), (0, 1, 2))
    expected = jax.grad(loss(formula), (0, 1, 2))
    for a, b in zip(made(*numbers), expected(*numbers), strict=True):
        # Float64: rounding alone is left, 1e-16 times the largest term of a sum.
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("kind", SELECTIONS)
def test_one_pass_finds_what_two_passes_find(kind):
    x = 1000 + jax.random.normal(jax.random.key(0), (4, 5, 6, 7))
    mask = selection(kind, x.shape[:-1])
    weight = jnp.ones(()) if mask is None else mask[..., None].astype(x.dtype)
    total = jnp.float32(120) if mask is None else weight.sum()
    one, two = (
        normalisation._in_one_pass(x, weight, total),
        normalisation._in_two_passes(x, weight, total),
    )
    np.testing.assert_allclose(one[0], two[0], rtol=1e-6)  # float32: 6e-8, and a sum's rounding
    # E[x²] − E[x]² would be wrong by 0.1: 1e6 is rounded to 0.06.
    np.testing.assert_allclose(one[1], two[1], rtol=1e-3)


def test_two_sums_at_once_are_the_sums():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, y = jnp.asarray(rng.standard_normal((2, 5, 7, 3)))
        for found, expected in zip(normalisation._sums_at_once((0, 1), x, y), (x, y), strict=True):
            np.testing.assert_allclose(found, expected.sum((0, 1)), rtol=1e-12)


def test_a_product_is_normalised_without_it():
    """Result, moments and gradients; in float64, where 1e-11 is rounding of sums of 60 products."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((3, 5, 4, 6)) + 2)  # as after ReLU, not around zero
        kernel, g = jnp.asarray(rng.standard_normal((6, 9))), rng.standard_normal((3, 5, 4, 9))
        scale, bias = jnp.asarray(rng.standard_normal((2, 9)))

        def of_product(x, kernel, scale, bias):
            return normalisation.batch_normalised(x @ kernel, None, scale, bias, 1e-5)

        def directly(x, kernel, scale, bias):
            return normalisation.product_normalised(x, kernel, scale, bias, 1e-5)

        (expected, back), (found, own) = (
            jax.vjp(f, x, kernel, scale, bias) for f in (of_product, directly)
        )
        none = jax.tree.map(jnp.zeros_like, expected[1])
        expected, found = (
            (*y, *f((jnp.asarray(g), none))) for y, f in ((expected, back), (found, own))
        )
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-11 * max(abs(a).max(), 1))


@pytest.mark.parametrize("rule", ["blocks", "nothing"])
def test_relu_and_its_gradient(rule):
    x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.nan])
    with layers.recomputing(layers.RECOMPUTED[rule]):
        y, back = jax.vjp(layers.relu, x)
    np.testing.assert_array_equal(y, [0, 0, 0, 2, np.nan])
    np.testing.assert_array_equal(back(jnp.full(5, 3.0))[0][:4], [0, 0, 0, 3])


def test_moments_are_numpys_of_what_is_selected():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5))
    mask = jax.random.bernoulli(jax.random.key(1), shape=(3, 4))
    found, kept = moments(x, mask), np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.var, kept.var(0), rtol=1e-5)
    assert found.count == len(kept)


def test_nothing_selected_leaves_the_running_statistics():
    norm, x = BatchNorm(), jnp.ones((2, 3, 4))
    variables = norm.init(jax.random.key(0), x, train=True)
    mask = jnp.zeros((2, 3), bool)
    y, changed = norm.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
    assert jnp.isfinite(y).all()
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, changed["batch_stats"], variables["batch_stats"])
    )


def test_gelu_is_pytorchs():
    x = np.linspace(-8, 8, 1001)
    given = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.gelu(given)
    expected.sum().backward()
    with jax.enable_x64(True):
        made, gradient = gelu(jnp.asarray(x)), jax.grad(lambda x: gelu(x).sum())(jnp.asarray(x))
    # Float64: 1 + erf(x) cancels to 1e-16 of 1 where x is far below zero.
    np.testing.assert_allclose(made, expected.detach(), atol=1e-14)
    np.testing.assert_allclose(gradient, given.grad, atol=1e-14)


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_is_pytorchs(affine):
    x = 50 + jax.random.normal(jax.random.key(0), (3, 4, 64))
    norm = LayerNorm(jnp.dtype("float32"), affine)
    params = {"scale": jnp.linspace(0.5, 2, 64), "bias": jnp.linspace(-1, 1, 64)} if affine else {}
    pair = [torch.tensor(np.asarray(p)) for p in params.values()]
    expected = torch.nn.functional.layer_norm(torch.tensor(np.asarray(x)), (64,), *pair, eps=1e-6)
    made = norm.apply({"params": params}, x)
    np.testing.assert_allclose(made, expected, atol=1e-4)  # float32: 50 is rounded to 4e-6


def test_a_row_s_moments_at_once_are_those_of_two_passes():
    x = 50 + jax.random.normal(jax.random.key(0), (3, 4, 64))
    for one, two in zip(
        normalisation._row_moments_at_once(x), normalisation._row_moments(x), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-5)  # float32: 50 is rounded to 4e-6


@pytest.mark.parametrize(
    "dtype, asked, used",
    [("float32", None, "HIGHEST"), ("bfloat16", None, None), ("float32", "tensorfloat32", "HIGH")],
)
def test_products_of_float32_are_not_rounded_unless_asked(dtype, asked, used):
    def product(x):
        with exact_products(dtype):
            return x @ x

    with jax.default_matmul_precision(asked):
        text = str(jax.make_jaxpr(product)(jnp.ones((2, 2))))
    assert f"Precision.{used}" in text if used else "Precision" not in text


@pytest.mark.parametrize("channels", [(7, 3), (3, 7)])  # either may be the narrower one
def test_a_products_gradient_is_that_of_the_formula(channels):
    c, d = channels
    with jax.enable_x64(True):
        x, kernel, wanted = (
            jax.random.normal(jax.random.key(i), shape, jnp.float64)
            for i, shape in enumerate([(4, 5, 6, c), (c, d), (4, 5, 6, d)])
        )

        def loss(multiplied):
            return lambda x, kernel: (multiplied(x, kernel) * wanted).sum()

        found = jax.value_and_grad(loss(product), (0, 1))(x, kernel)
        expected = jax.value_and_grad(loss(jnp.matmul), (0, 1))(x, kernel)
    # The same products of float64, added up in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


@pytest.mark.parametrize("at_once,devices,turns", [(3, 1, 4), (5, 1, 3), (99, 1, 1), (2, 4, 3)])
def test_in_turns_the_same_comes_out(at_once, devices, turns, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x, calls = jnp.arange(24.0).reshape(12, 2), []

    def call(given):
        calls.append(len(given[0]))
        return {"sum": given[0] + given[1][:, None], "own": given[1]}

    made = in_turns(call, (x, x[:, 0]), at_once)
    np.testing.assert_array_equal(made["sum"], x + x[:, :1])
    np.testing.assert_array_equal(made["own"], x[:, 0])
    assert set(calls) == {12 // turns}


def test_in_turns_the_same_gradient_comes_out():
    x, scale = jnp.arange(24.0).reshape(12, 2), jnp.array([2.0, 3.0])

    def loss(x, scale, at_once):
        return jnp.square(in_turns(lambda x: jnp.sin(x) * scale, x, at_once)).sum()

    few, all_at_once = (jax.grad(loss, (0, 1))(x, scale, n) for n in (3, 12))
    for a, b in zip(few, all_at_once, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)  # float32: four sums of three, not one of 12


def test_in_turns_each_device_keeps_its_own(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    first = in_turns(lambda x: jnp.broadcast_to(x[:1], x.shape), jnp.arange(12), at_once=1)
    # A turn has one entry of each device, whose entries are three in a row: 0, 3, 6, 9 at first.
    np.testing.assert_array_equal(first, [0, 1, 2] * 4)

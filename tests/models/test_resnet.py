"""The residual network's own blocks: pooling, and what training keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.models import resnet
from dinogrl_jax.models.resnet import Conv, Stages, max_pooled
from dinogrl_jax.ops import convolution
from dinogrl_jax.ops.convolution import by_blocks, directly, with_fewer_products
from dinogrl_jax.ops.layers import RECOMPUTED, recomputing


def library_pooled(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 2)])
def test_max_pooled_is_the_library_s_with_its_ties(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (2, *size, 3)).astype(np.float32))  # many ties
    pooled, pull_back = jax.vjp(max_pooled, x)
    expected, expected_pull_back = jax.vjp(library_pooled, x)
    g = jnp.asarray(rng.integers(-9, 10, pooled.shape).astype(np.float32))  # sums are exact
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(pull_back(g)[0], expected_pull_back(g)[0])


def test_max_pooled_of_minus_infinity():
    x = jnp.full((1, 4, 4, 1), -jnp.inf)
    assert jnp.isneginf(max_pooled(x)).all()


def compiled(blocks: int, x: jax.Array, rule: str = "blocks") -> jax.stages.Compiled:
    """A training step of one stage, and of a block after it."""
    model = Stages((blocks, 1), x.shape[-1] // 4, x.dtype)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))

    def loss(params: dict, variables: dict, x: jax.Array):
        given = {**variables, "params": params}
        with recomputing(RECOMPUTED[rule]):
            y, _ = model.apply(given, x, train=True, mutable="batch_stats")
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

    step = jax.jit(jax.grad(loss), compiler_options=compiler_options())
    return step.lower(variables["params"], variables, x).compile()


def temporaries(blocks: int, x: jax.Array, rule: str = "blocks") -> int:
    """Bytes that the step needs beside its input."""
    return compiled(blocks, x, rule).memory_analysis().temp_size_in_bytes


def test_training_keeps_at_most_a_block_s_input_and_its_two_narrow_maps():
    x = jnp.zeros((2, 32, 32, 64))
    narrow = x.nbytes / 4
    added = (temporaries(3, x) - temporaries(1, x)) / 2
    # 4 of the input and 1 of each narrow map, and kernels; the backward pass reads 16 or more.
    assert added < 7 * narrow


def test_what_is_kept_costs_memory_and_changes_no_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 64))
    least, more, most = (temporaries(3, x, rule) for rule in ("blocks", "elementwise", "nothing"))
    assert least + x.nbytes < more < most - x.nbytes
    variables = Stages((3, 1), 16, x.dtype).init(jax.random.key(1), x, train=False)
    given = variables["params"], variables, x
    expected, *others = (jax.tree.leaves(compiled(3, x, rule)(*given)) for rule in RECOMPUTED)
    largest = max(abs(g).max() for g in expected)
    for found in others:
        for a, b in zip(expected, found, strict=True):
            # The same sums in another order; each is of 2,048 positions and passes 12 layers.
            assert abs(a - b).max() < 1e-4 * largest


@pytest.mark.parametrize("size", [(2, 2), (8, 6)])
@pytest.mark.parametrize("at_once", [1, 2**9, 2**10])  # of 8×6: one frame, two, all
def test_a_convolution_by_fewer_products_is_the_same(size, at_once, monkeypatch):
    """So are both its gradients; in float64, where 1e-12 is rounding of sums of 9·5 products."""
    monkeypatch.setattr(convolution, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, g = (
            jnp.asarray(rng.standard_normal(shape))
            for shape in ((4, *size, 5), (3, 3, 5, 7), (4, *size, 7))
        )
        found, expected = (
            (y, *back(g))
            for y, back in (jax.vjp(f, x, kernel) for f in (with_fewer_products, directly))
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "features", "dtype", "fewer"),
    [
        ((1, 4, 2, 128), 128, "float32", True),
        ((1, 3, 2, 128), 128, "float32", False),  # an odd height
        ((1, 4, 2, 128), 64, "float32", False),
        ((1, 4, 2, 128), 128, "bfloat16", False),
    ],
)
def test_what_is_convolved_by_fewer_products(shape, features, dtype, fewer):
    """XLA has a convolution where there are not, and products of matrices where there are."""
    dtype = jnp.dtype(dtype)
    x = jnp.ones(shape, dtype)
    conv = Conv(features, 3, 1, dtype)
    variables = conv.init(jax.random.key(0), x)
    lowered = jax.jit(conv.apply).trace(variables, x).lower(lowering_platforms=("cpu",))
    assert ("stablehlo.convolution" not in lowered.as_text()) == fewer
    expected = directly(x, variables["params"]["kernel"].astype(dtype))
    # float32 rounding of 9·128 products; bfloat16 is computed alike
    np.testing.assert_allclose(conv.apply(variables, x), expected, rtol=0, atol=1e-5)


def test_a_convolution_by_blocks_is_the_same():
    """So are both its gradients; in float64, 1e-11 is rounding of sums of 735 products."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, g = (
            jnp.asarray(rng.standard_normal(shape))
            for shape in ((2, 12, 8, 3), (7, 7, 3, 5), (2, 6, 4, 5))
        )
        found, expected = (
            (y, *back(g))
            for y, back in (jax.vjp(f, x, kernel) for f in (by_blocks, lambda *a: directly(*a, 2)))
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_accelerators_begin_by_blocks():
    conv, x = Conv(8, 7, 2, jnp.dtype("float32")), jnp.ones((1, 12, 8, 3))
    variables = conv.init(jax.random.key(0), x)
    for platform, kernel in (("cpu", "7x7x3x8"), ("cuda", "4x4x16x8"), ("tpu", "4x4x16x8")):
        lowered = jax.jit(conv.apply).trace(variables, x).lower(lowering_platforms=(platform,))
        line = next(s for s in lowered.as_text().splitlines() if "stablehlo.convolution" in s)
        assert f"tensor<{kernel}xf32>" in line


def test_stages_of_half_precision_compute_the_same(monkeypatch):
    """Their way through a block, in float64: 1e-9 is rounding in 12 layers one behind the other."""

    def made(x: jax.Array) -> tuple:
        model = Stages((2, 2), 16, x.dtype)
        variables = model.init(jax.random.key(1), x, train=False)

        def loss(params: dict, x: jax.Array):
            y, new = model.apply({**variables, "params": params}, x, train=True, mutable=True)
            return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), new["batch_stats"]

        run = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return str(jax.make_jaxpr(run)(variables["params"], x)), run(variables["params"], x)

    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (4, 16, 8, 16), jnp.float64)
        usual, expected = made(x)
        monkeypatch.setattr(resnet, "half_precision", lambda dtype: True)
        other, found = made(x)
        assert other != usual
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-9 * max(abs(a).max(), 1))

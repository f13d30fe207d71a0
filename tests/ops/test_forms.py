"""Every fast form computes what its definition computes, gradients too; which one is used."""

import importlib
import pkgutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dinogrl_jax.ops
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.ops.activations import relu, relu_by_result
from dinogrl_jax.ops.chunks import in_turns, map_in_chunks
from dinogrl_jax.ops.forms import OPERATIONS, operation, using
from dinogrl_jax.ops.rectified import Lift

for module in pkgutil.iter_modules(dinogrl_jax.ops.__path__):
    importlib.import_module(f"dinogrl_jax.ops.{module.name}")


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def lift(seed: int, biases: int) -> Lift:
    return Lift(normal(seed, 5), normal(seed + 50, biases))


# Of each operation: what it is called with. Arrays of numbers are differentiated, others are not.
CALLS = {
    "affine_convolution": [
        lambda: [normal(0, 2, 6, 4, 3), normal(1, 3, 3, 3, 5), 2, normal(2, 5), normal(3, 5)],
    ],
    "attention": [
        lambda: [normal(i, 2, 7, 4, 3) for i in range(3)],
        lambda: [*(normal(i, 2, 7, 4, 3) for i in range(3)), True],  # causal
    ],
    "barrier": [lambda: [normal(0, 3)]],
    "batch_norm": [
        lambda: [3 + normal(0, 4, 5, 6, 7), None, normal(1, 7), normal(2, 7), 1e-5],
        lambda: [3 + normal(0, 4, 5, 6, 7), selected(0.4), normal(1, 7), normal(2, 7), 1e-5],
        lambda: [3 + normal(0, 4, 5, 6, 7), selected(0.0), normal(1, 7), normal(2, 7), 1e-5],
    ],
    "convolution": [
        lambda: [normal(0, 2, 6, 4, 3), normal(1, 1, 1, 3, 5), 1],
        lambda: [normal(0, 2, 6, 4, 3), normal(1, 1, 1, 3, 5), 2],
    ],
    "gelu": [lambda: [jnp.linspace(-8, 8, 101, dtype=jnp.float64)]],
    "layer_norm": [lambda: [50 + normal(0, 3, 4, 64), 1e-6]],
    "map_in_chunks": [lambda: [lambda x: jnp.sin(x) * jnp.arange(2.0), normal(0, 12, 2), 5]],
    "matmul": [
        lambda: [normal(0, 4, 5, 7), normal(1, 7, 3)],  # either may be the narrower one
        lambda: [normal(0, 4, 5, 3), normal(1, 3, 7)],
    ],
    "mean_over_positions": [lambda: [3 + normal(0, 4, 5, 6, 7)]],
    "max_pool": [lambda: [normal(0, 2, 7, 9, 3)], lambda: [normal(0, 2, 8, 6, 3)]],
    "rectified_products": [
        lambda: [
            normal(0, 3, 6),
            normal(1, 3, 6),
            *(lift(2 + i, 5) for i in range(3)),
            *(lift(5 + i, 1) for i in range(2)),
        ],
    ],
    "relu": [lambda: [jnp.linspace(-8, 8, 100, dtype=jnp.float64)]],
    "upsampled_dense": [
        lambda: [normal(0, 2, 3, 4, 5), normal(1, 5), normal(2, 5), normal(3, 5, 6), normal(4, 6)],
    ],
    "upsampled_moments": [
        lambda: [5 + normal(0, 3, 4, 6, 8), doubled(0.5)],
        lambda: [5 + normal(0, 3, 4, 6, 8), doubled(0.0)],
    ],
}
NOT_HERE = {"attention_by_cudnn"}  # which needs a GPU, and is tested there


def selected(share: float) -> jax.Array:
    return jax.random.bernoulli(jax.random.key(9), share, (4, 5, 6))


def doubled(share: float) -> jax.Array:
    return jax.random.bernoulli(jax.random.key(9), share, (3, 8, 12))


FORMS = [
    pytest.param(name, form.function, call, id=f"{form.function.__name__}-{number}")
    for name, found in OPERATIONS.items()
    for form in found.forms
    if form.function.__name__ not in NOT_HERE
    for number, call in enumerate(CALLS[name])
]


@pytest.mark.parametrize("name, form, call", FORMS)
def test_a_form_computes_what_its_definition_computes(name, form, call):
    """In float64, where rounding of sums is left alone: 1e-10 of the largest value."""
    with jax.enable_x64(True):
        arguments = call()
        numbers = [i for i, x in enumerate(arguments) if of_numbers(x)]

        def scalar(function, *given):
            whole = list(arguments)
            for i, x in zip(numbers, given, strict=True):
                whole[i] = x
            made = jax.tree.leaves(function(*whole))
            # The moments that batch_norm returns have no gradient in either form.
            made = made[:1] if name == "batch_norm" else made
            return sum((x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum() for x in made), made

        given = [arguments[i] for i in numbers]
        which = tuple(range(len(given)))
        with using("plain", "cpu"):
            definition = OPERATIONS[name].definition
            expected = jax.grad(partial(scalar, definition), which, has_aux=True)(*given)
        found = jax.grad(partial(scalar, form), which, has_aux=True)(*given)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            largest = float(jnp.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(largest, 1))


IN_FLOAT32 = {"layer_norm", "rectified_products"}  # for which models widen what they give


@pytest.mark.parametrize("name, form, call", [f for f in FORMS if f.values[0] not in IN_FLOAT32])
def test_a_form_takes_bfloat16(name, form, call):
    """Maps and kernels are bfloat16 there, vectors float32; the result is as near to exact."""
    with jax.enable_x64(True):
        exact = [rounded(x) for x in call()]
        given = [x.astype(narrow(x)) if of_numbers(x) else x for x in exact]
        with using("plain", "cpu"):
            expected = jax.tree.leaves(OPERATIONS[name].definition(*exact))
            definition = jax.tree.leaves(OPERATIONS[name].definition(*given))
        for a, b, c in zip(jax.tree.leaves(form(*given)), expected, definition, strict=True):
            assert a.dtype == c.dtype
            difference = float(jnp.abs(a.astype(b.dtype) - b).max())
            # bfloat16 rounds to 2^-9 of a value: of weights, of sums, and of the result.
            assert difference <= 2**-7 * max(float(jnp.abs(b).max()), 1)


def narrow(x: jax.Array) -> jnp.dtype:
    return jnp.float32 if x.ndim == 1 and x.size < 10 else jnp.bfloat16


def rounded(x):
    """In float64, but no more digits than it has there."""
    return x.astype(narrow(x)).astype(jnp.float64) if of_numbers(x) else x


def test_relu_at_the_edges():
    """0 and −0 have no gradient, what is not a number stays so."""
    x = jnp.array([0.0, -0.0, 1.0, -1.0, jnp.nan, jnp.inf])
    for form in (relu.definition, relu_by_result):
        np.testing.assert_array_equal(form(x), [0, 0, 1, 0, np.nan, np.inf])
        gradient = jax.grad(lambda x, form=form: form(x).sum())(x)
        np.testing.assert_array_equal(gradient[:4], [0, 0, 1, 0])


def test_chunks_pass_gradients_to_what_the_function_closes_over():
    def loss(w, form):
        return form(lambda x: jnp.sin(x * w), jnp.arange(12.0).reshape(6, 2), 2).sum()

    expected = jax.grad(loss)(0.3, map_in_chunks.definition)
    np.testing.assert_allclose(jax.grad(loss)(0.3, in_turns), expected, rtol=1e-5)  # float32


def of_numbers(x) -> bool:
    leaves = jax.tree.leaves(x)
    return bool(leaves) and all(
        isinstance(leaf, jax.Array) and leaf.dtype == jnp.float64 for leaf in leaves
    )


def test_every_operation_with_a_form_is_tried_here():
    assert {name for name, found in OPERATIONS.items() if found.forms} == CALLS.keys()


@operation
def thrice(x):
    return "definition", x


@thrice.form("gpu", when=lambda x: x > 1)
def thrice_on_a_gpu(x):
    return "form", x


del OPERATIONS["thrice"]


@pytest.mark.parametrize(
    "forms, platform, x, expected",
    [
        ("fast", "gpu", 2, "form"),
        ("fast", "gpu", 1, "definition"),  # `when` is false
        ("fast", "cpu", 2, "definition"),  # of another platform
        ("plain", "gpu", 2, "definition"),
        ("gelu,thrice", "gpu", 2, "form"),
        ("gelu", "gpu", 2, "definition"),
    ],
)
def test_which_form_is_used(forms, platform, x, expected, monkeypatch):
    monkeypatch.setitem(OPERATIONS, "thrice", thrice)
    with using(forms, platform):
        assert thrice(x) == (expected, x)


def test_the_context_ends_also_behind_an_error():
    with pytest.raises(KeyError), using("fast", "gpu"):
        raise KeyError
    assert thrice(2) == ("definition", 2)  # JAX's own device here is a CPU


@pytest.mark.parametrize("forms", ["fats", "gelu,atention", ""])
def test_a_name_that_is_none_is_refused(forms):
    with pytest.raises(InputError, match="ops.forms = .*: there is fast, plain, or of gelu,"):
        with using(forms, "cpu"):
            pass

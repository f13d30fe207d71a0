"""The residual network: what training keeps of it, and that this changes no gradient."""

import jax
import jax.numpy as jnp
import pytest

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.models.resnet import Stages
from dinogrl_jax.ops import forms
from dinogrl_jax.ops.remat import POLICIES


def compiled(blocks: int, x: jax.Array, policy: str, form: str = "fast") -> jax.stages.Compiled:
    """A training step of one stage, and of a block after it."""
    model = Stages((blocks, 1), x.shape[-1] // 4, x.dtype, policy)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, x.dtype), variables)

    def loss(params: dict, variables: dict, x: jax.Array):
        y, _ = model.apply({**variables, "params": params}, x, train=True, mutable="batch_stats")
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

    step = jax.jit(jax.grad(loss), compiler_options=compiler_options())
    with forms.using(form, "cpu"):
        return step.lower(variables["params"], variables, x).compile()


def temporaries(blocks: int, x: jax.Array, policy: str) -> int:
    """Bytes that the step needs beside its input."""
    return compiled(blocks, x, policy).memory_analysis().temp_size_in_bytes


def test_training_keeps_at_most_a_block_s_input_and_its_two_narrow_maps():
    x = jnp.zeros((2, 32, 32, 64))
    narrow = x.nbytes / 4
    more = (temporaries(3, x, "blocks") - temporaries(1, x, "blocks")) / 2
    # 4 of the input and 1 of each narrow map, and kernels; the backward pass reads 16 or more.
    assert more < 7 * narrow


@pytest.fixture(scope="module")
def stage():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 16, 16, 64), jnp.float64)
        variables = Stages((3, 1), 16, x.dtype).init(jax.random.key(1), x, train=False)
        variables = jax.tree.map(lambda leaf: leaf.astype(x.dtype), variables)
        given = variables["params"], variables, x
        return given, jax.tree.leaves(compiled(3, x, "blocks")(*given))


@pytest.mark.parametrize("form", ["fast", "plain"])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_gradient_changes(policy, form, stage):
    given, expected = stage
    with jax.enable_x64(True):
        found = jax.tree.leaves(compiled(3, given[-1], policy, form)(*given))
        largest = max(abs(g).max() for g in expected)
        for a, b in zip(expected, found, strict=True):
            # Float64: the same sums in another order, of 512 positions, through 12 layers.
            assert abs(a - b).max() < 1e-10 * largest


def test_what_is_kept_costs_memory():
    x = jnp.zeros((2, 32, 32, 64))
    least, more, most = (temporaries(3, x, policy) for policy in POLICIES)
    assert least + x.nbytes < more < most - x.nbytes

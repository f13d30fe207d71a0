"""Products of float32 on accelerators."""

import jax
import jax.numpy as jnp
import pytest

from dinogrl_jax.ops.precision import exact_products


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

"""Every step lowers for NVIDIA GPUs, on a machine that has none."""

import functools
import re

import pytest
import small
from lowering import exported_embed, exported_step

from dinogrl_jax.devices import sharding


@functools.cache
def exported(export, dtype: str):
    config = small.get_config()
    config.model.compute_dtype = dtype
    return export(small.METHOD, small.model(config), config, sharding.device_mesh(), "gpu")


@pytest.mark.parametrize(
    ("export", "dtype"),
    [(exported_step, "float32"), (exported_step, "bfloat16"), (exported_embed, "float32")],
)
def test_lowers_for_cuda(export, dtype):
    found = exported(export, dtype)
    assert found.platforms == ("cuda",)
    assert len(found.mlir_module_serialized) > 10_000


def test_no_product_of_a_float32_step_is_rounded():
    module = exported(exported_step, "float32").mlir_module()
    calls = re.findall(r"stablehlo\.(?:dot_general|convolution).*", module)
    assert len(calls) > 20  # of the smallest method there is, in small, 38
    # Those of gradients that are written out (custom_vjp) are traced after the model's call.
    assert [call for call in calls if "HIGHEST" not in call] == []

"""The count of the arithmetic that shares are of."""

import arithmetic
import jax
import jax.numpy as jnp
import pytest
from arithmetic import Work
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.models.resnet import Stages
from dinogrl_jax.ops import forms

FLOAT32 = jnp.dtype("float32")
BACKBONE = ConfigDict(
    {
        "height": 448,
        "width": 224,
        "patch": 14,
        "grid": 37,
        "embedding": 384,
        "depth": 1,
        "heads": 6,
        "mlp_ratio": 4.0,
        "mlp": "gelu",
        "registers": 0,
        "antialias": False,
        "offset": 0.1,
        "taps": (0,),
    }
)


def test_a_convolution_by_hand():
    """Two rows of three positions, 3×3 kernels of 5 channels to 7: 6·9·5·7 multiply-adds."""
    assert arithmetic.conv(6, 3, 5, 7) == (2 * 1890, 4 * 1890)
    assert arithmetic.conv(6, 3, 5, 7, first=True) == (2 * 1890, 2 * 1890)


def test_stages_are_added_up():
    assert arithmetic.total({"a": Work(1, 2), "b": Work(30, 40)}) == (31, 42)
    assert Work(1, 2).times(3).training == 9


def counted(module: nn.Module, x: tuple[int, ...], **options) -> float:
    """What XLA counts in the definitions of a forward pass, of shapes alone.

    Fast forms compute less than is published, and loop, where XLA counts a turn once.
    """
    given = jax.ShapeDtypeStruct(x, jnp.float32)
    with forms.using("plain", "cpu"):
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **options), given)
        lowered = jax.jit(lambda v, x: module.apply(v, x, **options)).lower(variables, given)
    return lowered.cost_analysis()["flops"]


def test_the_compiler_counts_as_much_in_the_backbone():
    """Beside the products it counts softmax, GELU and LayerNorm: 2 %."""
    found = counted(DINOv2(BACKBONE, FLOAT32), (1, 448, 224, 3))
    assert found == pytest.approx(arithmetic.dinov2(BACKBONE).forward, rel=0.05)


def test_the_compiler_counts_as_much_in_a_resnet():
    """It leaves out products with the border's zeros: 3 % here."""
    found = counted(Stages((3, 4, 6, 3), 64, FLOAT32), (1, 64, 32, 64), train=False)
    expected = arithmetic.resnet_stages((3, 4, 6, 3), 64, 64, (64, 32)).forward
    assert found == pytest.approx(expected, rel=0.05)

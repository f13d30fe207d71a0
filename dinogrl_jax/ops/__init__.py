"""Operations that have a fast form: a file begins with definitions, their forms follow."""

from dinogrl_jax.ops import (  # noqa: F401  # all of them, so that `ops.forms` knows their names
    activations,
    attention,
    barrier,
    chunks,
    convolution,
    matmul,
    normalisation,
    rectified,
    upsampling,
)

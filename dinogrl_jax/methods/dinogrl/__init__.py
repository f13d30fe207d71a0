"""DinoGRL (arXiv 2511.04281)."""

from dinogrl_jax.methods.dinogrl.model import (  # noqa: F401
    FROZEN,
    MODALITIES,
    Model,
    descriptor,
    part_names,
    training_loss,
)
from dinogrl_jax.methods.dinogrl.weights import (  # noqa: F401
    released_facts,
    released_files,
    starting_weights,
)

"""One module per paper: `Model`, `FROZEN`, `descriptor`, `training_loss`, `RULES`."""

from dinogrl_jax.methods import dinogrl

METHODS = {"dinogrl": dinogrl}

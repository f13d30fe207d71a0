"""One module per paper: `Model`, `FROZEN`, `descriptor`, `part_names`, `training_loss`,
`published_files`, `published_parts`.
"""

from dinogrl_jax.methods import dinogrl

METHODS = {"dinogrl": dinogrl}

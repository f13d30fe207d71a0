"""Training steps of a small VLD on each of several meshes, as lines of JSON:

    python tests/methods/vld/vld_scale.py 1,2,4,8

In float64, where only the order of sums differs. Of each mesh the losses, and the shapes of the
text tower's activations in the compiled step: [a device's identities, tokens, channels].
"""

import json
import re
import sys

import jax
import numpy as np
import small

from dinogrl_jax.devices import compiling, memory, sharding
from dinogrl_jax.methods import vld
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step

STEPS, IDENTITIES, HIDDEN = 6, 21, 4 * 24  # 21: no number of devices divides it
TOKENS = 6


def main(meshes: str) -> None:
    jax.config.update("jax_enable_x64", True)
    memory.keep_freed()
    compiling.keep_compiled()
    config = small.get_config("vld")
    config.data.identities_per_batch, config.data.tracklets_per_identity = 4, 2
    config.data.height, config.data.width = 32, 16
    config.model.compute_dtype = "float64"
    config.model.clip.text.width = HIDDEN // 4
    config.optimizer.learning_rate, config.optimizer.warmup_epochs = 1e-3, 0
    model = vld.Model(config, Facts(IDENTITIES))
    variables = initial_variables(model, config)
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
    for devices in map(int, meshes.split(",")):
        mesh = sharding.device_mesh(1, jax.devices()[:devices])
        state = sharding.spread(initial_state(variables, vld, config), mesh)
        batches = [sharding.placed(batch(step), mesh) for step in range(STEPS)]
        step = make_step(vld, model, config, mesh).lower(state, *batches[0]).compile()
        pattern = rf"f64\[(\d+),{TOKENS},{HIDDEN}\]"
        shares = sorted({int(count) for count in re.findall(pattern, step.as_text())})
        losses = []
        for given in batches:
            state, terms = step(state, *given)
            losses.append({name: float(value) for name, value in terms.items()})
        print(json.dumps({"losses": losses, "shares": shares}), flush=True)


def batch(step: int) -> tuple[Clips, np.ndarray]:
    """Eight pairs of four identities."""
    rng = np.random.default_rng(step)
    labels = np.repeat(rng.choice(IDENTITIES, 4, replace=False), 2).astype(np.int32)
    frames = rng.normal(size=(8, 2, 2, 32, 16, 3)) + labels[:, None, None, None, None, None]
    return Clips(frames, np.full((8, 2), -1, np.int32)), labels


if __name__ == "__main__":
    main(sys.argv[1])

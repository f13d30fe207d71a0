"""Passes and training steps of a small X-ReID on each of several meshes, as lines of JSON:

    python tests/methods/xreid/xreid_scale.py 1,2,4,8 [ADDRESS COUNT INDEX]

In float64, where only the order of sums differs. Of each mesh the losses, and the memories behind
the first pass, behind the first steps and behind a second pass. With an ADDRESS, it is one of COUNT
processes, which read a share of every batch each; the first one prints.
"""

import contextlib
import json
import sys
from functools import partial

import jax
import numpy as np
import small

from dinogrl_jax.data.batches import EvaluationBatch
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.devices import compiling, hosts, memory, sharding
from dinogrl_jax.methods import xreid
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training.state import Setup, initial_state
from dinogrl_jax.training.step import make_step
from dinogrl_jax.training.sweep import Sweeper

STEPS, IDENTITIES = 4, 9
TRACKLETS, SIZE = 19, 8  # of each modality in a pass, and in a batch: the last has 3 and 5 more
EPOCHS = (0, 2)  # by statistics of the batch, and by running ones
HEIGHT, WIDTH = 32, 16


def main(meshes: str, address: str = "", count: int = 1, index: int = 0) -> None:
    jax.config.update("jax_enable_x64", True)
    config = small.get_config("xreid")
    config.hosts.update({"coordinator": address, "count": count, "index": index})
    memory.keep_freed()
    hosts.connect(config.hosts)
    compiling.keep_compiled()
    share = slice(index * SIZE // count, (index + 1) * SIZE // count)
    config.data.identities_per_batch, config.data.tracklets_per_identity = 4, 2
    config.data.height, config.data.width = HEIGHT, WIDTH
    config.model.compute_dtype = "float64"
    config.model.clip.depth = 2
    config.optimizer.learning_rate, config.optimizer.warmup_epochs = 1e-5, 0
    model = xreid.Model(config, Facts(IDENTITIES, (1, 2, 3)))
    variables = initial_variables(model, config)
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
    for devices in map(int, meshes.split(",")):
        mesh = sharding.device_mesh(1, jax.devices()[:devices])
        state = sharding.spread(initial_state(variables, xreid, config), mesh)
        setup = Setup(xreid, model, config, mesh)
        sweeper, step = Sweeper(setup, partial(swept, share)), make_step(*setup)
        losses, memories = [], []
        for epoch in EPOCHS:
            state = sweeper(state, epoch)
            memories.append(kept(state))
            for number in range(STEPS):
                mine = jax.tree.map(lambda x: x[share], batch(epoch, number))
                state, terms = step(state, *sharding.placed(mine, mesh))
                losses.append({name: float(value) for name, value in terms.items()})
            memories.append(kept(state))
        if hosts.first():
            print(json.dumps({"losses": losses, "memories": memories}), flush=True)


def kept(state) -> list:
    return [np.asarray(x).tolist() for x in jax.tree.leaves(state.collections["memory"])]


def batch(epoch: int, step: int) -> tuple[Clips, np.ndarray]:
    """SIZE pairs of four identities."""
    rng = np.random.default_rng([epoch, step])
    labels = np.repeat(rng.choice(IDENTITIES, 4, replace=False), SIZE // 4).astype(np.int32)
    frames = rng.normal(size=(SIZE, 2, 2, HEIGHT, WIDTH, 3))
    frames += labels[:, None, None, None, None, None]
    return Clips(frames, rng.integers(1, 4, (SIZE, 2)).astype(np.int32)), labels


@contextlib.contextmanager
def swept(share: slice, size: int, epoch: int):
    """All tracklets; what fills the last batches up is unlike them, so that it would show.

    share: of each batch, which this process reads.
    """
    del size
    rng, made = np.random.default_rng([7, epoch]), []
    for modality in MODALITIES:
        for start in range(0, TRACKLETS, SIZE):
            valid = np.arange(start, start + SIZE) < TRACKLETS
            frames = rng.normal(size=(SIZE, 1, 2, HEIGHT, WIDTH, 3))
            frames[~valid] = 100
            labels = (np.arange(start, start + SIZE) % IDENTITIES).astype(np.int32)
            cameras = np.full(SIZE, 2, np.int32)
            rows = (x[share] for x in (frames, cameras, labels, cameras, valid))
            made.append(EvaluationBatch(*rows, modality))
    yield made


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))

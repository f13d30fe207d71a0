"""Twenty training steps on each of several meshes:

    python tests/scale.py 1:1,4:2,1:1=FOLDER [ADDRESS COUNT INDEX]

trains on one device, then on four of which two share a copy, and prints for each mesh the losses,
the figures of an embedding and what the devices send each other, as a line of JSON, which
tests/training/test_scale.py compares. With a FOLDER, the run saves there after ten steps, or goes
on with what another has saved. In float64: in float32 a difference of rounding grows tenfold in
five steps, and hides mistakes.
"""

import json
import sys

import jax
import numpy as np
import small
from collectives import collectives
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax.devices import compiling, hosts, memory, sharding
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.state import Setup, initial_state, restored_state
from dinogrl_jax.training.step import make_step

STEPS = 20


def batch(step: int) -> tuple[Clips, np.ndarray]:
    """Eight pairs of four identities; people differ in brightness by bands of rows."""
    rng = np.random.default_rng(step)
    labels = np.repeat(np.arange(4), 2).astype(np.int32)
    looks = np.random.default_rng(99).normal(size=(4, 1, 1, 8, 1, 1))
    frames = rng.normal(size=(8, 2, 2, 32, 16, 3)) + np.repeat(looks, 4, axis=3)[labels]
    return Clips(frames, np.tile([1, 2], (8, 1)).astype(np.int32)), labels


def settings() -> ConfigDict:
    """Smaller than tests/small.py, as it compiles for longer than it runs.

    No channels are as many as tracklets, so that shapes tell what is sent.
    """
    config = small.get_config()
    data = config.data
    data.height, data.width = 32, 16
    data.identities_per_batch, data.tracklets_per_identity = 4, 2
    config.model.compute_dtype = "float64"
    small.sizes().shrink_more(config)
    config.train.steps_per_epoch, config.optimizer.warmup_epochs = 5, 2
    return config


def main(meshes: str, address: str = "", count: int = 1, index: int = 0) -> None:
    jax.config.update("jax_enable_x64", True)
    config = settings()
    config.hosts.update({"coordinator": address, "count": count, "index": index})
    memory.keep_freed()
    hosts.connect(config.hosts)
    compiling.keep_compiled()
    sharding.LEAST = 64  # numbers; arrays are small here
    model = small.model(config)
    variables = initial_variables(model, config)
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
    for sizes in meshes.split(","):
        sizes, _, folder = sizes.partition("=")
        devices, fsdp = map(int, sizes.split(":"))
        mesh = sharding.device_mesh(fsdp, jax.devices()[:devices])
        found = trained(model, variables, config, mesh, folder)
        if hosts.first():
            print(json.dumps(found), flush=True)


def trained(model: nn.Module, variables: dict, config: ConfigDict, mesh: Mesh, folder: str) -> dict:
    """The losses of the steps on a mesh, and what else is printed of it."""
    count, index = config.hosts.count, config.hosts.index
    state = sharding.spread(initial_state(variables, small.METHOD, config), mesh)
    step = make_step(small.METHOD, model, config, mesh)
    embed = make_embed(small.METHOD, model, config, mesh)
    mine = slice(index * 8 // count, (index + 1) * 8 // count)
    batches = [placed(n, mine, mesh) for n in range(STEPS)]
    step = step.lower(state, *batches[0]).compile()
    first, losses, heard = 0, [], []
    agreement = hosts.Agreement(mesh)
    if folder:
        manager = checkpoint.open_folder(folder, create=True)
        first = manager.latest_step() or 0
    if first:
        items = {"variables": state.variables, "training": state.training}
        items = checkpoint.restored(manager, first, **sharding.shapes(items, mesh))
        state = restored_state(**items, step=first, setup=Setup(small.METHOD, model, config, mesh))
    for number in range(first, STEPS):
        if folder and number == STEPS // 2 and not first:
            metadata = checkpoint.Metadata(config, [], [], number)
            checkpoint.save(manager, state.variables, metadata, state.training)
            checkpoint.finish(manager)
        state, terms = step(state, *batches[number])
        losses.append(float(terms["total"]))
        if agreement(index == count - 1 and number == 15):
            heard.append(number)
    clips, _ = placed(STEPS, mine, mesh)
    visible = Clips(clips.frames[:, :1], clips.camera[:, :1], ("visible",))
    made = hosts.gathered(embed(state.variables, visible))
    largest = max(x.addressable_data(0).size for x in jax.tree.leaves(state.opt_state))
    sent = [(one.kind, one.shapes) for one in collectives(step.as_text())]
    return {
        "losses": losses,
        "embedding": made.tolist(),
        "largest": largest,
        "heard": heard,
        "sent": sent,
    }


def placed(step: int, mine: slice, mesh: Mesh) -> tuple[Clips, jax.Array]:
    """This process's rows of a batch, on the devices."""
    return sharding.placed(jax.tree.map(lambda x: x[mine], batch(step)), mesh)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))

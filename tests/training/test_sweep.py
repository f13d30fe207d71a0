"""The pass before an epoch, of a method in a few lines that keeps the centre of each identity."""

from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax import config as configuration
from dinogrl_jax.data.pipeline import sweep_batches
from dinogrl_jax.data.tracklets import Tracklet, labels
from dinogrl_jax.devices import sharding
from dinogrl_jax.methods.contract import Group, Sweep
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training.state import Setup, initial_state
from dinogrl_jax.training.sweep import Sweeper

IDENTITIES, TRACKLETS = 3, 5  # of each modality


class Brightness(nn.Module):
    """The mean colour of a clip, scaled."""

    @nn.compact
    def __call__(self, clips, *, train):
        self.variable("memory", "centres", jnp.zeros, (IDENTITIES, 3))
        self.variable("memory", "sweeps", jnp.zeros, (), jnp.int32)
        self.variable("other", "kept", jnp.ones, (2,))
        return clips.frames.mean((1, 2, 3, 4)) * self.param("scale", nn.initializers.ones, (3,))


def begin(variables):
    return {"sum": jnp.zeros((IDENTITIES, 3)), "count": jnp.zeros((IDENTITIES, 1))}


def gather(model, variables, gathered, clips, labels, valid):
    one_hot = jax.nn.one_hot(labels, IDENTITIES).T * valid * (clips.camera[:, 0] >= 0)
    sums = gathered["sum"] + one_hot @ model.apply(variables, clips, train=False)
    return {}, {"sum": sums, "count": gathered["count"] + one_hot.sum(1, keepdims=True)}


def end(variables, gathered):
    centres = gathered["sum"] / gathered["count"]
    return {"memory": {"centres": centres, "sweeps": variables["memory"]["sweeps"] + 1}}


STEP = partial(gather, Brightness())


def before_epoch(model, config, epoch):
    return Sweep(4, begin, STEP, end) if epoch % 2 == 0 else None


@pytest.fixture
def method():
    module = ModuleType("centres")
    module.groups = lambda config: [Group(".*", lambda step: jnp.asarray(0.1))]
    module.before_epoch = before_epoch
    return module


@pytest.fixture
def config():
    made = ConfigDict(configuration.shared())
    made.data.update(height=8, width=4, frames=2, workers=0)
    return made


@pytest.fixture
def tracklets(tmp_path):
    """One of unknown camera, which the method leaves out."""
    made, rng = [], np.random.default_rng(0)
    for number in range(2 * TRACKLETS):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8)).save(path)
        modality, camera = ("infrared", "visible")[number % 2], -1 if number == 4 else number
        made.append(Tracklet((str(path),) * 2, 10 + number % IDENTITIES, camera, modality, "train"))
    return made


def test_a_sweep_changes_collections_and_nothing_else(method, config, tracklets):
    mesh, model = sharding.device_mesh(), Brightness()
    state = sharding.spread(initial_state(initial_variables(model, config), method, config), mesh)
    asked = []

    def batches(size):
        asked.append(size)
        return sweep_batches(tracklets, labels(tracklets), config, size, multiple=mesh.size)

    sweeper = Sweeper(Setup(method, model, config, mesh), batches)
    swept = sweeper(state, 0)
    means = {}
    for batch in batches(1):
        identity = tracklets[batch.positions[0]].identity
        if batch.cameras[0] >= 0 and batch.valid[0]:
            means.setdefault(identity, []).append(batch.frames.mean((0, 1, 2, 3, 4)))
    expected = np.stack([np.mean(means[identity], axis=0) for identity in sorted(means)])
    np.testing.assert_allclose(swept.collections["memory"]["centres"], expected, rtol=1e-5)
    assert int(swept.collections["memory"]["sweeps"]) == 1
    same = jax.tree.map(
        np.array_equal, swept._replace(collections={}, key=0), state._replace(collections={}, key=0)
    )
    assert all(jax.tree.leaves(same))
    assert np.array_equal(swept.collections["other"]["kept"], np.ones(2))
    assert sweeper(swept, 1) is swept  # no pass before this epoch
    third = sweeper(swept, 2)
    assert int(third.collections["memory"]["sweeps"]) == 2
    np.testing.assert_array_equal(
        third.collections["memory"]["centres"], swept.collections["memory"]["centres"]
    )
    assert asked == [4, 1, 4]
    assert sweeper.compiled.cache_info().misses == 1  # equal sweeps are compiled once


def test_a_sweep_that_is_drawn_is_told_the_epoch(method, config, tracklets):
    """Its tracklets come in another order before each epoch, and none is lost."""
    mesh, model = sharding.device_mesh(), Brightness()
    state = sharding.spread(initial_state(initial_variables(model, config), method, config), mesh)
    method.before_epoch = lambda model, config, epoch: Sweep(4, begin, STEP, end, random=True)
    orders = []

    def batches(size, epoch):
        drawn = dict(epoch=epoch, multiple=mesh.size)
        made = sweep_batches(tracklets, labels(tracklets), config, size, **drawn)
        orders.append([position for row in made.recipe.rows for position, _ in row])
        return made

    sweeper, swept = Sweeper(Setup(method, model, config, mesh), batches), []
    for epoch in (0, 1):
        swept.append(sweeper(state, epoch).collections["memory"]["centres"])
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    np.testing.assert_allclose(*swept, rtol=1e-5)  # float32 sums in another order
    assert sweeper.compiled.cache_info().misses == 1

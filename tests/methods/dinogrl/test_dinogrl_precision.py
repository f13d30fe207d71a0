"""bfloat16 compute: parameters and statistics stay float32, descriptors keep the ranking."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small

from dinogrl_jax.devices import sharding
from dinogrl_jax.methods import dinogrl
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.embedding import make_embed
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step

PEOPLE, TRACKLETS = 12, 3


@pytest.fixture(scope="module")
def frames():
    """Tracklets of people, each a coarse pattern of colours, with noise of their own."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((PEOPLE, 1, 1, 8, 4, 3))
    patterns = patterns.repeat(8, axis=3).repeat(8, axis=4)
    noise = 0.7 * rng.standard_normal((PEOPLE, TRACKLETS, 2, 64, 32, 3))
    return (patterns + noise).reshape(-1, 1, 2, 64, 32, 3).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    config = small.get_config()
    return initial_variables(small.model(config), config)


def descriptors(frames, variables, dtype):
    config = small.get_config()
    config.model.compute_dtype = dtype
    embed = make_embed(dinogrl, small.model(config), config, sharding.device_mesh())
    clips = Clips(frames, np.full(frames.shape[:2], -1, np.int32), ("visible",))
    return np.asarray(embed(variables, clips))


def test_the_ranking_is_kept(frames, variables):
    identity = np.arange(len(frames)) // TRACKLETS
    queries, gallery = np.arange(0, len(frames), TRACKLETS), np.arange(len(frames)) % TRACKLETS > 0
    figures, distances, appearance_distances = {}, {}, {}
    for dtype in ("float32", "bfloat16"):
        made = descriptors(frames, variables, dtype)
        assert made.dtype == np.float32
        distance = oracle.part_distances(made[queries], made[gallery])
        camera = np.zeros(len(frames)), np.ones(len(frames))
        figures[dtype] = oracle.figures(
            distance, identity[queries], camera[0], identity[gallery], camera[1]
        )
        distances[dtype] = distance
        own = made[:, made.shape[1] // 2 :]
        appearance_distances[dtype] = oracle.part_distances(own[queries], own[gallery])
    chance = (TRACKLETS - 1) / gallery.sum()
    assert 2 * chance < figures["float32"][1] < 1  # there is a ranking, and it can change
    assert abs(figures["bfloat16"][1] - figures["float32"][1]) < 0.005  # mAP: half a point
    exact, rounded = distances["float32"], distances["bfloat16"]
    assert np.median(np.abs(rounded - exact)) < 0.01 * exact.mean()  # 8 bits, averaged over parts
    # Of the appearance stream also the largest: a silhouette of random weights hangs on rounding at
    # some positions, and takes the gait stream's parts of its tracklet along.
    exact, rounded = (appearance_distances[dtype] for dtype in ("float32", "bfloat16"))
    assert np.abs(rounded - exact).max() < 0.02 * exact.mean()


def test_parameters_and_statistics_stay_float32(frames, variables):
    config = small.get_config()
    config.model.compute_dtype = "bfloat16"
    model, mesh = small.model(config), sharding.device_mesh()
    started = initial_variables(model, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(started)} == {jnp.dtype("float32")}
    state = initial_state(variables, dinogrl, config)
    state = jax.device_put(state, sharding.replicated(mesh))
    pairs = frames[:8].reshape(4, 2, 2, 64, 32, 3)
    clips = Clips(pairs, np.full(pairs.shape[:2], -1, np.int32))
    state, terms = make_step(dinogrl, model, config, mesh)(state, clips, np.array([0, 0, 1, 1]))
    kept = (state.params, state.frozen, state.collections)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert all(np.isfinite(value) for value in terms.values())

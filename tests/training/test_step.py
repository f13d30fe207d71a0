"""The training step's own rules, beside what the golden values prove of its arithmetic."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
from ml_collections import ConfigDict

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Clips, Group
from dinogrl_jax.methods.schedules import by_steps
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.guard import Guard
from dinogrl_jax.training.optimizer import optimizer
from dinogrl_jax.training.run_folder import state_to_train
from dinogrl_jax.training.state import Setup, State, divided, initial_state, merged
from dinogrl_jax.training.step import make_step, mean_gradients


def test_what_is_not_finite_changes_nothing_but_the_step():
    config = small.get_config()
    config.optimizer.average = 0.75
    model, mesh = small.model(config), sharding.device_mesh()
    before = initial_state(initial_variables(model, config), small.METHOD, config)
    before = sharding.spread(before, mesh)
    kept = jax.tree.map(np.array, before._replace(key=0))  # copies: the state is donated
    step = make_step(small.METHOD, model, config, mesh)
    frames = np.random.default_rng(0).normal(size=(2, 2, 2, 64, 32, 3)).astype(np.float32)
    labels = np.array([0, 1], np.int32)
    cameras = np.array([[1, 2], [3, -1]], np.int32)
    frames[0, 0, 0, 5, 5, 0] = np.nan
    after, terms = step(before, Clips(frames, cameras), labels)
    assert float(terms["finite"]) == 0 and int(after.step) == 1
    for name in ("params", "frozen", "collections", "opt_state", "average"):
        same = jax.tree.map(np.array_equal, getattr(kept, name), getattr(after, name))
        assert all(jax.tree.leaves(same)), name
    frames[0, 0, 0, 5, 5, 0] = 0
    moved, terms = step(after, Clips(frames, cameras), labels)
    assert float(terms["finite"]) == 1 and int(moved.step) == 2
    same = jax.tree.map(np.array_equal, kept.params, jax.tree.map(np.array, moved.params))
    assert not all(jax.tree.leaves(same))
    # One rounding of each product and of their sum.
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * np.array(b), kept.params, moved.params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=3e-7, atol=1e-9), moved.average, expected)
    name = next(name for name in moved.params if name not in moved.frozen)
    assert moved.variables["params"][name] is moved.average[name]
    assert moved.trained["params"][name] is moved.params[name]


def guard_of(policy, tmp_path):
    return Guard(policy, lambda step: [f"tracklet {step}"], tmp_path / "not_finite.jsonl")


def terms(finite: bool) -> dict:
    return {"finite": finite, "total": np.nan, "gradient_norm": 1.0}


def test_the_guard_stops_one_step_later_and_names_the_batch(tmp_path):
    guard = guard_of("stop", tmp_path)
    guard.step(7, terms(True))
    guard.step(8, terms(False))
    with pytest.raises(InputError, match="step 8: the loss is nan"):
        guard.step(9, terms(True))
    (line,) = (tmp_path / "not_finite.jsonl").read_text().splitlines()
    assert json.loads(line)["tracklets"] == ["tracklet 7"]  # the batch's index, from 0


def test_the_guard_counts_what_is_skipped(tmp_path):
    guard = guard_of("skip", tmp_path)
    for number, finite in enumerate((True, False, True, False), 1):
        guard.step(number, terms(finite))
    guard.finish()
    guard.finish()
    assert guard.skipped == 2
    assert len((tmp_path / "not_finite.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="train.not_finite = 'ignore'"):
        guard_of("ignore", tmp_path)


def test_micro_batches_average_gradients_and_pass_collections_on():
    rng = np.random.default_rng(0)
    frames, labels = jnp.asarray(rng.normal(size=(6, 3))), jnp.arange(6)

    def gradient(params, collections, clips, labels, key):
        value = {"w": (clips.frames * params["w"]).mean(0)}
        seen = 2 * collections["memory"]["seen"] + labels.max()
        last = clips.camera[-1, 0]
        return value, ({"total": labels.mean()}, {"memory": {"seen": seen, "last": last}})

    collections = {"memory": {"seen": jnp.zeros((), int), "last": jnp.zeros((), int)}}
    state = State(0, 0, {"w": jnp.ones(3)}, {}, collections, (), {})
    clips, key = Clips(frames, jnp.arange(6)[:, None]), jax.random.key(0)
    whole, _, _ = mean_gradients(gradient, state, clips, labels, key, 1)
    halves, found, collections = mean_gradients(gradient, state, clips, labels, key, 2)
    np.testing.assert_allclose(halves["w"], whole["w"], rtol=1e-6)  # equal parts: mean of means
    assert float(found["total"]) == 2.5
    assert float(collections["memory"]["seen"]) == 2 * 4 + 5  # rows 0, 2, 4, then rows 1, 3, 5
    assert float(collections["memory"]["last"]) == 5


def constant(rate: float):
    return lambda step: jnp.asarray(rate)


def test_clipping_comes_before_the_decay():
    params = {"w": jnp.array([2.0, 0.0])}
    transform = optimizer([Group(".*", constant(1e-3), decay=0.5)], ConfigDict({"clip_norm": 1.0}))
    _, state = transform.update({"w": jnp.array([30.0, 40.0])}, transform.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["w"]
    np.testing.assert_allclose(moment, 0.1 * np.array([0.6 + 0.5 * 2.0, 0.8]), rtol=1e-6)


def updates(transform: optax.GradientTransformation, steps: int = 3) -> list:
    """What a transformation makes of random gradients of some parameters."""
    rng = np.random.default_rng(0)
    shapes = {"a": {"kernel": (5, 7), "bias": (7,)}, "b": {"kernel": (7, 3)}}
    trees = [
        jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )
        for _ in range(steps + 1)
    ]
    params, *gradients = trees
    state, found = transform.init(params), []
    for gradient in gradients:
        update, state = jax.jit(transform.update)(gradient, state, params)
        found.append(update)
    return found


def assert_close(found, expected) -> None:
    # compiled differently: a few float32 roundings
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-9), found, expected)


PLAIN = ConfigDict({"clip_norm": 0.0})


def test_coupled_decay_is_adam_of_the_decayed_gradient():
    made = optimizer([Group(".*", constant(3e-4), decay=5e-4)], PLAIN)
    adam = optax.adam(3e-4, b1=0.9, b2=0.999, eps=1e-8)
    assert_close(updates(made), updates(optax.chain(optax.add_decayed_weights(5e-4), adam)))


def test_decoupled_decay_is_adamw():
    made = optimizer([Group(".*", constant(3e-4), decay=5e-2, decoupled=True)], PLAIN)
    assert_close(updates(made), updates(optax.adamw(3e-4, weight_decay=5e-2)))


def test_groups_have_rates_and_decays_of_their_own_and_the_first_that_fits_counts():
    groups = [
        Group(r".*/bias", constant(2e-3)),
        Group(r"a/.*", constant(1e-3), decay=0.1),
        Group(r".*", lambda step: 1e-4 * (step + 1.0), decay=0.2, decoupled=True),
    ]
    found = updates(optimizer(groups, PLAIN))
    parts = [
        (("a", "bias"), optax.adam(2e-3)),
        (("a", "kernel"), optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3))),
        (("b", "kernel"), optax.adamw(lambda step: 1e-4 * (step + 1.0), weight_decay=0.2)),
    ]
    for (module, leaf), transform in parts:
        expected = [update[module][leaf] for update in updates(transform)]
        assert_close([update[module][leaf] for update in found], expected)


def test_what_no_group_trains_is_frozen_leaf_by_leaf():
    rate = constant(1.0)
    groups = [Group(r"a/bias", None), Group(r"a/.*|c", rate), Group(r".*/bias", rate)]
    params = {"a": {"bias": 1, "kernel": 2}, "b": {"bias": 3, "kernel": 4}, "c": 5, "d": {"e": 6}}
    trained, frozen = divided(params, groups)
    assert trained == {"a": {"kernel": 2}, "b": {"bias": 3}, "c": 5}
    assert frozen == {"a": {"bias": 1}, "b": {"kernel": 4}, "d": {"e": 6}}
    assert merged(trained, frozen) == params


def test_the_rate_of_a_step_is_that_of_its_epoch():
    settings = {"learning_rate": 2.0, "warmup_epochs": 4, "warmup_factor": 0.1}
    settings |= {"decay_epochs": (5, 7), "decay_factor": 0.5}
    rate = by_steps(ConfigDict(settings), steps_per_epoch=10)
    steps = {0: 0.2, 9: 0.2, 10: 0.65, 39: 1.55, 40: 2, 49: 2, 50: 1, 69: 1, 70: 0.5, 900: 0.5}
    for step, expected in steps.items():
        assert float(rate(step)) == float(rate(jnp.asarray(step))) == pytest.approx(expected)


def test_a_run_does_not_continue_with_other_identities(tmp_path):
    config = small.get_config()
    manager, model = checkpoint.open_folder(tmp_path, create=True), small.model(config)
    setup = Setup(small.METHOD, model, config, sharding.device_mesh())
    metadata = checkpoint.Metadata(config, ["3", "5"], [1, 2], 4)
    checkpoint.save(manager, {"params": {"w": jnp.ones(2)}}, metadata)
    manager.wait_until_finished()
    with pytest.raises(InputError, match="trained on 2 identities, which are not the 3"):
        known = metadata._replace(identities=["3", "5", "7"])
        state_to_train(setup, known, manager)
    with pytest.raises(InputError, match="trained on 2 cameras, which are not the 1"):
        known = metadata._replace(cameras=[1])
        state_to_train(setup, known, manager)

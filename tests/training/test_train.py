"""The training step's own rules, beside what the golden values prove of its arithmetic."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from dinogrl_jax.config import default
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training import checkpoint, train
from dinogrl_jax.training.guard import Guard
from dinogrl_jax.training.optim import learning_rate, optimizer


def test_what_is_not_finite_changes_nothing_but_the_step():
    config = small.get_config()
    config.optimizer.average = 0.75
    model, mesh = small.model(config), sharding.device_mesh()
    before = train.initial_state(train.initial_variables(model, config), config)
    before = sharding.spread(before, mesh)
    kept = jax.tree.map(np.array, before._replace(key=0))  # copies: the state is donated
    step = train.make_step(model, config, mesh)
    frames = np.random.default_rng(0).normal(size=(2, 2, 2, 64, 32, 3)).astype(np.float32)
    labels = np.array([0, 1], np.int32)
    frames[0, 0, 0, 5, 5, 0] = np.nan
    after, terms = step(before, frames, labels)
    assert float(terms["finite"]) == 0 and int(after.step) == 1
    for name in ("params", "frozen", "batch_stats", "opt_state", "average"):
        same = jax.tree.map(np.array_equal, getattr(kept, name), getattr(after, name))
        assert all(jax.tree.leaves(same)), name
    frames[0, 0, 0, 5, 5, 0] = 0
    moved, terms = step(after, frames, labels)
    assert float(terms["finite"]) == 1 and int(moved.step) == 2
    assert not np.array_equal(
        kept.params["gait_parts"]["kernel"], moved.params["gait_parts"]["kernel"]
    )
    # One rounding of each product and of their sum.
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * np.array(b), kept.params, moved.params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=3e-7, atol=1e-9), moved.average, expected)
    assert moved.variables["params"]["gait_parts"] is moved.average["gait_parts"]
    assert moved.trained["params"]["gait_parts"] is moved.params["gait_parts"]


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


def test_parts_average_gradients_and_pass_statistics_on():
    rng = np.random.default_rng(0)
    frames, labels = jnp.asarray(rng.normal(size=(6, 3))), jnp.arange(6)

    def gradient(params, batch_stats, frames, labels, key):
        value = {"w": (frames * params["w"]).mean(0)}
        return value, ({"total": labels.mean()}, {"seen": 2 * batch_stats["seen"] + labels.max()})

    state = train.State(0, 0, {"w": jnp.ones(3)}, {}, {"seen": jnp.zeros(())}, (), {})
    key = jax.random.key(0)
    whole, _, _ = train.averaged(gradient, state, frames, labels, key, 1)
    parts, found, stats = train.averaged(gradient, state, frames, labels, key, 2)
    np.testing.assert_allclose(parts["w"], whole["w"], rtol=1e-6)  # equal parts: mean of means
    assert float(found["total"]) == 2.5
    assert float(stats["seen"]) == 2 * 4 + 5  # rows 0, 2, 4, then rows 1, 3, 5


def test_clipping_comes_before_the_decay():
    config = default().optimizer
    config.update({"clip_norm": 1.0, "weight_decay": 0.5, "warmup_epochs": 0})
    params = {"w": jnp.array([2.0, 0.0])}
    transform = optimizer(config, 1)
    _, state = transform.update({"w": jnp.array([30.0, 40.0])}, transform.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["w"]
    np.testing.assert_allclose(moment, 0.1 * np.array([0.6 + 0.5 * 2.0, 0.8]), rtol=1e-6)


def test_the_optimiser_is_optax_adam_with_its_state():
    config = default().optimizer
    rate = float(learning_rate(config, 0))
    adam = optax.adam(lambda _: rate, b1=0.9, b2=0.999, eps=1e-8)
    plain = optax.chain(optax.identity(), optax.add_decayed_weights(config.weight_decay), adam)
    ours = optimizer(config, 1000)
    rng = np.random.default_rng(0)
    params, *gradients = ({"w": jnp.asarray(rng.normal(size=50), jnp.float32)} for _ in range(4))
    states = [ours.init(params), plain.init(params)]
    for gradient in gradients:
        (update, states[0]), (expected, states[1]) = (
            jax.jit(x.update)(gradient, state, params)
            for x, state in zip((ours, plain), states, strict=True)
        )
        # compiled differently: a few float32 roundings
        np.testing.assert_allclose(update["w"], expected["w"], rtol=1e-6)
    # a checkpoint of one is a checkpoint of the other
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_a_run_does_not_continue_with_other_identities(tmp_path):
    config = small.get_config()
    manager = checkpoint.open_folder(tmp_path, create=True)
    metadata = checkpoint.Metadata(config, ["3", "5"], 4, None, None)
    checkpoint.save(manager, {"params": {"w": jnp.ones(2)}}, metadata)
    manager.wait_until_finished()
    with pytest.raises(InputError, match="trained on 2 identities, which are not the 3"):
        train.started(small.model(config), config, ["3", "5", "7"], manager, sharding.device_mesh())

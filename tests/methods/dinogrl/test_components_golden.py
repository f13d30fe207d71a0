"""Parts of DinoGRL against the golden values of the published ones: tests/golden/components.npz."""

import json
from pathlib import Path

import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.methods import default, dinogrl
from dinogrl_jax.methods.dinogrl.pbmge import PBMGE
from dinogrl_jax.methods.schedules import by_steps
from dinogrl_jax.models import losses
from dinogrl_jax.ops import forms
from dinogrl_jax.weights.conversion import to_state, to_variables

GOLDEN = Path(__file__).parents[2] / "golden"
CONFIG = default("dinogrl")
FILE = dinogrl.released_files(CONFIG)["pbmge"]
ROUNDING = 2e-5  # float32 sums of 256 products, of the largest value
VISITED = 2e-4  # a part passes 16 normalisations with the deviation of 1,536 values, each 1e-5
LIMITS = {"pbmge_stat": 1e-5, "pbmge_grad": 1e-3}  # lifts' gradients pass through 256² sums
ZERO = 0.1  # what is left of hundreds that cancel; PyTorch leaves 0.018


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "components.npz")


def channels_last(array):
    return jnp.asarray(array.swapaxes(1, 2))


def off(array, golden):
    """The largest difference, in units of the largest golden value."""
    return np.abs(np.asarray(array) - golden).max() / np.abs(golden).max()


@pytest.fixture(params=["plain", "fast"])
def form(request):
    """By which forms of operations a test computes."""
    with forms.using(request.param, "cpu"):
        yield request.param


@pytest.fixture(scope="module")
def pbmge(golden):
    """The module, its seeded variables and its two inputs."""
    manifest = json.loads((GOLDEN / "dinogrl_manifest.json").read_text())[FILE.name]
    state = {k: fill.parameter(f"{FILE.name}:{k}", tuple(s), 130) for k, s in manifest}
    model = PBMGE(CONFIG.model.parts)
    inputs = [channels_last(golden[f"pbmge_{name}_in"]) for name in ("gait", "appearance")]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=True))
    shapes = {collection: {"pbmge": tree} for collection, tree in shapes.items()}
    variables, _ = to_variables(state, FILE.rules, shapes, source_name=FILE.name)
    variables = {collection: tree["pbmge"] for collection, tree in variables.items()}
    return model, jax.tree.map(jnp.asarray, variables), inputs


def test_pbmge_in_evaluation(golden, pbmge, form):
    model, variables, inputs = pbmge
    results = model.apply(variables, *inputs, train=False)
    for name, original, result in zip(("gait", "appearance"), inputs, results, strict=True):
        assert (result[:, :31] == original).all()
        assert off(result[:, 31:].swapaxes(1, 2), golden[f"pbmge_{name}_eval"]) < ROUNDING


def test_pbmge_in_training(golden, pbmge, form):
    model, variables, inputs = pbmge
    cotangent = channels_last(golden["pbmge_cotangent"])

    def pulled_back(params, gait, appearance):
        results, mutated = model.apply(
            {**variables, "params": params}, gait, appearance, train=True, mutable="batch_stats"
        )
        return sum((result * cotangent).sum() for result in results), (results, mutated)

    gradient = jax.jit(jax.grad(pulled_back, argnums=(0, 1, 2), has_aux=True))
    (params, *into), (results, mutated) = gradient(variables["params"], *inputs)
    for i, name in enumerate(("gait", "appearance")):
        added = results[i][:, 31:].swapaxes(1, 2)
        assert off(added, golden[f"pbmge_{name}_train"]) < VISITED
        assert off(into[i].swapaxes(1, 2), golden[f"pbmge_{name}_grad"]) < VISITED
    made = {"params": {"pbmge": params}, "batch_stats": {"pbmge": mutated["batch_stats"]}}
    state, _ = to_state(jax.device_get(made), FILE.rules)
    for name in golden.files:
        kind, _, key = name.partition(":")
        if key.endswith(("W1.0.bias", "W2.0.bias")):  # in front of a BatchNorm: zero
            assert np.abs(state[key]).max() < ZERO, key
        elif key:
            assert off(state[key], golden[name]) < LIMITS[kind], key


def test_triplet(golden):
    x, labels = channels_last(golden["triplet_in"]), jnp.asarray(golden["triplet_labels"])
    margin = CONFIG.loss.triplet_margin
    value, gradient = jax.value_and_grad(losses.batch_all_triplet)(x, labels, margin)
    assert abs(value / golden["triplet"] - 1) < 1e-6  # a mean of 10⁴ hinges in another order
    assert off(gradient.swapaxes(1, 2), golden["triplet_grad"]) < ROUNDING


def test_cross_entropy(golden):
    x, labels = channels_last(golden["ce_in"]), jnp.asarray(golden["triplet_labels"])
    loss = CONFIG.loss

    def scaled(x):
        logits = loss.identity_scale * x
        return losses.smoothed_cross_entropy(logits, labels, loss.label_smoothing)

    value, gradient = jax.value_and_grad(scaled)(x)
    assert abs(value / golden["ce"] - 1) < 1e-6  # float32 logarithms
    assert off(gradient.swapaxes(1, 2), golden["ce_grad"]) < ROUNDING


def test_schedule(golden):
    rate = by_steps(CONFIG.optimizer, steps_per_epoch=1)
    rates = [rate(int(epoch)) for epoch in golden["schedule_epoch"]]
    np.testing.assert_allclose(rates, golden["schedule_lr"], rtol=1e-6)  # float32 against float64

"""Parts of X-ReID against golden values of the published modules: tests/golden/clip_components.npz.

They are float64, of float32 parameters and inputs.
"""

from pathlib import Path

import fill
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from dinogrl_jax.methods import default, xreid
from dinogrl_jax.methods.xreid.losses import hardest_triplet
from dinogrl_jax.methods.xreid.prototypes import contrast, hardest, updated
from dinogrl_jax.methods.xreid.sii import LII, SII, with_neighbours
from dinogrl_jax.methods.xreid.weights import CROSS_ATTENTION
from dinogrl_jax.models.losses import euclidean_distances
from dinogrl_jax.ops import forms
from dinogrl_jax.training.optimizer import optimizer
from dinogrl_jax.training.state import divided, merged
from dinogrl_jax.weights.conversion import to_state, to_variables
from dinogrl_jax.weights.rules import Rule, filled_template, under

GOLDEN = Path(__file__).parents[2] / "golden"
# Float64 leaves rounding alone; in float32 sums are rounded in another order.
LIMITS = {"float64": 1e-12, "float32": 1e-5}  # of the deviation
MEMORY = 1e-8  # the published share that a step keeps is a float32
CONFIG = default("xreid")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "clip_components.npz")


@pytest.fixture(params=LIMITS)
def dtype(request):
    """In which type a test computes."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture(params=["plain", "fast"])
def form(request):
    """By which forms of operations a test computes."""
    with forms.using(request.param, "cpu"):
        yield request.param


def assert_near(found, golden, dtype, least=0.0) -> None:
    off = np.abs(np.asarray(found, np.float64) - golden).max()
    allowed = max(LIMITS[dtype.name], least)
    assert off <= allowed * max(golden.std(), np.abs(golden).max())


@pytest.mark.parametrize("shift, end", [("clean", ""), ("cascade", "_cascade")])
def test_channels_of_neighbours(golden, shift, end):
    """Of two tracklets of four frames; nothing is computed, so that nothing is rounded."""
    t = int(golden["sii_frames_a_tracklet"])
    patches = jnp.asarray(golden["sii_in"])[:, 1:]
    found = with_neighbours(patches.reshape(-1, t, *patches.shape[1:]), shift)
    np.testing.assert_array_equal(found.reshape(patches.shape), golden[f"sii_shifted{end}"])


def test_channels_of_neighbours_by_hand():
    """Frames filled with their number; the last half of the channels stays."""
    x = jnp.broadcast_to(jnp.arange(10.0)[None, :, None, None], (1, 10, 1, 4))
    before, after, *own = np.asarray(with_neighbours(x, "clean"))[0, :, 0].T
    np.testing.assert_array_equal(before, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_array_equal(after, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    np.testing.assert_array_equal(own, [np.arange(10)] * 2)
    assert not with_neighbours(x, "cascade")[0, :, 0, 0].any()


@pytest.mark.parametrize("shift, end", [("clean", ""), ("cascade", "_cascade")])
def test_short_term_interaction(golden, dtype, form, shift, end):
    rules = [
        *under(CROSS_ATTENTION, "Reconstuct_shift.Rotation.", "block0/"),
        *under(CROSS_ATTENTION, "Reconstuct_shift2.Rotation.", "block1/"),
    ]
    module = SII(2, 2, shift, dtype)
    found, gradient = outcome(golden, "sii", module, rules, dtype)
    assert_near(found, golden[f"sii_out{end}"], dtype)
    if not end:
        assert_gradients(golden, "sii", gradient, dtype)
        first, _ = outcome(golden, "sii", SII(1, 2, shift, dtype), rules[: len(rules) // 2], dtype)
        assert_near(first, golden["sii_first"], dtype)


def test_long_term_interaction(golden, dtype, form):
    """As the published code has it and does not call it: the next frame's class token, cyclic."""
    rules = under(CROSS_ATTENTION, "Reconstuct_shift.Rotation.", "block/")
    module = LII(2, -1, "cyclic", dtype)
    found, gradient = outcome(golden, "lii", module, rules, dtype)
    assert_near(found, golden["lii_out"], dtype)
    assert_gradients(golden, "lii", gradient, dtype)


def outcome(golden, name, module, rules, dtype) -> tuple:
    """What a module makes of the golden tokens, and its gradient by the published names."""
    t = int(golden["sii_frames_a_tracklet"])
    state = fill.state_dict("clip_components_manifest.json", int(golden["seed"]))[name]
    state = {k: x for k, x in state.items() if any(r.match_key(k) is not None for r in rules)}
    x = jnp.asarray(golden["sii_in"], dtype)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, t))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
    variables, _ = to_variables(state, rules, shapes, source_name=name)
    variables = jax.tree.map(jnp.asarray, variables)

    def pulled_back(variables):
        y = module.apply(variables, x, t)
        return (y * jnp.asarray(golden["sii_cotangent"], dtype)).sum(), y

    gradient, found = jax.grad(pulled_back, has_aux=True)(variables)
    return found, to_state(gradient, rules)[0]


def assert_gradients(golden, name, gradient, dtype) -> None:
    """A shift of all keys has a gradient of rounding alone: it is measured by the others'."""
    names = [k.partition(":")[2] for k in golden.files if k.startswith(f"{name}_grad:")]
    assert gradient.keys() == set(names)
    largest = max(np.abs(golden[f"{name}_grad:{key}"]).max() for key in names)
    for key in names:
        if key.endswith("normy.bias"):
            off = np.abs(gradient[key] - golden[f"{name}_grad:{key}"]).max()
            assert off <= LIMITS[dtype.name] * largest
        else:
            assert_near(gradient[key], golden[f"{name}_grad:{key}"], dtype)


def test_hardest_triplet(golden, dtype):
    """Rows 0 and 1 are equal: of equally far tracklets the first has the gradient."""
    x, labels = jnp.asarray(golden["hard_in"], dtype), jnp.asarray(golden["hard_labels"])
    value, gradient = jax.value_and_grad(hardest_triplet)(x, labels, 0.3)
    assert_near(value, golden["hard_triplet"], dtype)
    assert_near(gradient, golden["hard_grad"], dtype)
    distance, same = np.asarray(euclidean_distances(x)), labels[:, None] == labels[None, :]
    assert_near(np.where(same, distance, 0).max(1), golden["hard_positive"], dtype)
    assert_near(np.where(same, np.inf, distance).min(1), golden["hard_negative"], dtype)


def test_one_identity_alone_has_no_triplet():
    x, labels = jnp.ones((4, 3)), jnp.zeros(4, int)
    value, gradient = jax.value_and_grad(hardest_triplet)(x, labels, 0.3)
    assert value == 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize("which", ["released", "default"])
def test_contrast_with_prototypes(golden, dtype, which):
    """Temperature 0.05; the released code keeps 0.1 of a prototype, the class's default is 0.2."""
    x, labels = jnp.asarray(golden["cpc_in"], dtype), jnp.asarray(golden["cpc_labels"])
    memory = jnp.asarray(golden["cpc_memory"], dtype)
    config, kept = CONFIG.model.prototypes, float(golden[f"cpc_{which}_kept"])
    assert config.temperature == golden["cpc_temperature"]
    value, gradient = jax.value_and_grad(contrast)(x, labels, memory, config)
    assert_near(value, golden[f"cpc_{which}"], dtype)
    assert_near(gradient, golden[f"cpc_{which}_grad"], dtype)
    after = updated(memory, x, labels, kept, jnp.ones(len(x), bool))
    assert_near(after, golden[f"cpc_{which}_memory"], dtype, MEMORY)
    untouched = np.setdiff1d(np.arange(len(memory)), golden["cpc_labels"])
    np.testing.assert_array_equal(after[untouched], memory[untouched])


def test_update_by_hand():
    """(0.6, 0.8) is less like (1, 0) than (0.8, 0.6); 0.1 of the old and 0.9 of the new."""
    memory = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    x, labels = jnp.array([[1.2, 1.6], [0.8, 0.6]]), jnp.array([1, 1])
    every = jnp.ones(2, bool)
    after = updated(memory, x, labels, 0.1, every)
    np.testing.assert_allclose(after[1], [0.66436, 0.74741], atol=1e-5)
    np.testing.assert_array_equal(after[0], memory[0])
    after = updated(memory, x, labels, 0.1, jnp.array([False, True]))  # the other may not be it
    np.testing.assert_allclose(after[1], np.array([0.82, 0.54]) / np.hypot(0.82, 0.54), rtol=1e-6)
    np.testing.assert_array_equal(updated(memory, x, labels, 0.1, ~every), memory)
    equal = hardest(jnp.ones((3, 2)), jnp.array([1, 0, 1]), memory, jnp.ones(3, bool))
    assert equal.tolist() == [True, True, False]  # the first of equals


def test_steps_of_the_optimiser(golden):
    """28 steps at five rates, with a decay so large that it shows where it is added."""
    config = CONFIG.copy_and_resolve_references()
    c = config.optimizer
    c.learning_rate = float(golden["adam_learning_rate"])
    c.weight_decay = float(golden["adam_weight_decay"])
    c.warmup_epochs = int(golden["adam_warmup_epochs"])
    c.warmup_factor = float(golden["adam_warmup_factor"])
    c.decay_epochs = tuple(golden["adam_decay_epochs"].tolist())
    config.train.steps_per_epoch = 1
    epochs = golden["adam_epochs"]
    names = [n.partition(":")[2] for n in golden.files if n.startswith("adam_start:")]
    paths = {name: path for name in names if (path := place(name, config))}
    assert set(names) - paths.keys() == set(golden["adam_no_gradient"])  # are not in the model
    with jax.enable_x64(True):
        start = {path: jnp.asarray(golden[f"adam_start:{name}"]) for name, path in paths.items()}
        groups = [
            g._replace(rate=at_epochs(g.rate, jnp.asarray(epochs)) if g.rate else None)
            for g in xreid.groups(config)
        ]
        params, frozen = divided(unflatten_dict(start, sep="/"), groups)
        fixed = {name for name, path in paths.items() if path in flatten_dict(frozen, sep="/")}
        assert fixed == set(golden["adam_frozen"])
        transform = optimizer(groups, c)
        state = transform.init(params)
        update = jax.jit(transform.update)
        for step in range(len(epochs)):
            gradients = {
                path: jnp.asarray(golden[f"adam_gradient:{name}"][step], jnp.float64)
                for name, path in paths.items()
                if name not in fixed
            }
            updates, state = update(unflatten_dict(gradients, sep="/"), state, params)
            params = optax.apply_updates(params, updates)
            found = flatten_dict(merged(params, frozen), sep="/")
            for name, path in paths.items():
                expected = golden[f"adam_after:{name}"][step]
                np.testing.assert_allclose(found[path], expected, rtol=1e-12)


def place(key: str, config: ConfigDict) -> str | None:
    """The path of a published tensor below "params"; None for what the model does not have."""
    for rule in xreid.released_files(config)["model"].rules:
        if isinstance(rule, Rule) and (fields := rule.match_key(key)) is not None:
            return filled_template(rule.paths[0], fields).partition("/")[2]
    return None


def at_epochs(rate, epochs):
    return lambda step: rate(epochs[step])


def test_the_schedule():
    """The five rates of the published loop, by their multipliers 1, 2, 10, 20 and 100."""
    published = np.load(GOLDEN / "xreid_train_float64.npz")
    config = CONFIG.copy_and_resolve_references()
    config.train.steps_per_epoch = 1
    groups = [group.rate for group in xreid.groups(config) if group.rate]
    with jax.enable_x64(True):
        for epoch, rates in zip(published["schedule_epoch"], published["schedule_lr"], strict=True):
            found = {float(rate(jnp.asarray(epoch - 1))) for rate in groups}
            np.testing.assert_allclose(sorted(found), sorted(rates), rtol=1e-12)

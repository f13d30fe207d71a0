"""X-ReID as its paper has it: there are no reference numbers, so properties and cases by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax.traverse_util import flatten_dict

from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import xreid
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.released import released_states
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.methods.xreid.cii import constraint
from dinogrl_jax.methods.xreid.model import fused
from dinogrl_jax.methods.xreid.prototypes import contrast
from dinogrl_jax.methods.xreid.settings import set_as_in_the_paper
from dinogrl_jax.training.optimizer import group_of


@pytest.fixture
def config():
    made = small.get_config("xreid")
    set_as_in_the_paper(made)
    return checked_config(made)


def clips() -> Clips:
    """Two pairs of two frames."""
    frames = np.random.default_rng(0).normal(size=(2, 2, 2, 64, 32, 3))
    return Clips(jnp.asarray(frames, jnp.float32), jnp.ones((2, 2), int))


def outcome(config) -> tuple[dict, dict, dict]:
    """The loss's terms, the gradient and the variables."""
    model = xreid.Model(config, small.FACTS)
    variables = initial_variables(model, config)
    channels = variables["memory"]["visible"].shape[1]
    full = {m: jnp.full((small.IDENTITIES, channels), channels**-0.5) for m in variables["memory"]}
    rest = {"batch_stats": variables["batch_stats"], "memory": full}

    def loss(params):
        given = {"params": params, **rest}, clips(), jnp.array([0, 3]), jax.random.key(0)
        total, made = xreid.training_loss(model, *given, config)
        return total, made.terms

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return terms, gradient, variables


@pytest.mark.parametrize("shared", [True, False])
def test_all_that_the_paper_has_is_trained(config, shared):
    config.model.cii.shared = shared
    terms, gradient, variables = outcome(config)
    assert {name for name in terms if name.startswith("constraint")} == {
        "constraint_sii",
        "constraint_lii",
    }
    assert all(np.isfinite(float(x)) for x in terms.values())
    directions = ("both",) if shared else ("visible", "infrared")
    blocks = {f"cii_{x}_{m}" for x in ("sii", "lii") for m in directions}
    assert blocks | {"sii", "lii"} <= variables["params"].keys()
    for name in (*blocks, "sii", "lii", "classifier_interactions"):
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[name])) > 0, name
    assert variables["memory"]["visible"].shape == (small.IDENTITIES, 6)  # the projection alone
    groups = xreid.groups(config)
    rates = {p: group_of(p, groups) for p in flatten_dict(variables["params"], sep="/")}
    slow = float(group_of("image/block0/norm1/scale", groups).rate(jnp.asarray(0)))
    for path, group in rates.items():
        if re.match("cii_|lii/", path):
            expected = 20 if path.endswith("bias") else 10
            assert float(group.rate(jnp.asarray(0))) == pytest.approx(expected * slow)


def test_a_descriptor_needs_no_partner(config):
    """CII is of the training alone."""
    model = xreid.Model(config, small.FACTS)
    variables = initial_variables(model, config)
    both = clips()
    alone = Clips(both.frames[:, :1], both.camera[:, :1], ("visible",))
    made = jax.jit(lambda v, x: xreid.descriptor(model.apply(v, x, train=False), config))
    assert made(variables, alone).shape == (2, 1, 8 + 6 + 8)
    pair = made(variables, both)[::2]
    np.testing.assert_allclose(made(variables, alone), pair, rtol=1e-5, atol=1e-6)  # float32


def test_the_constraint_by_hand():
    """(1, 0) finds (0, 2): 1 + 4; (0, 1) finds itself; (3, 0) finds (0, 0): 9; (1, 1) itself."""
    asking = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 1.0]]])
    found = jnp.array([[[0.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    for detach in (False, True):
        value, gradient = jax.value_and_grad(constraint)(asking, found, detach)
        assert value == (5 + 9) / 2
        assert bool(jnp.abs(gradient).max() > 0) != detach


def test_interactions_are_fused_by_hand():
    one, two = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 6.0]])
    np.testing.assert_array_equal(fused([one, two], "mean"), [[2, 4]])
    np.testing.assert_array_equal(fused([one, two], "sum"), [[4, 8]])
    for fusion in ("mean", "sum"):
        np.testing.assert_array_equal(fused([one], fusion), one)


def test_contrast_with_the_people_of_the_batch_by_hand(config):
    """Cosines 1 and 0 at temperature 1; the third prototype, as near as the first, is not there."""
    memory = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    x, labels = jnp.array([[5.0, 0.0], [0.0, 2.0]]), jnp.array([0, 1])
    c = config.model.prototypes
    value, gradient = jax.value_and_grad(contrast)(x, labels, memory, c)
    np.testing.assert_allclose(value, np.log(1 + np.exp(-1)), rtol=1e-6)  # float32
    assert np.isfinite(gradient).all()
    c.against = "all"
    both = [np.log(2 + np.exp(-1)), np.log(1 + 2 * np.exp(-1))]
    np.testing.assert_allclose(contrast(x, labels, memory, c), np.mean(both), rtol=1e-6)


def test_there_is_no_file_of_what_was_never_released(config):
    variables = small.random_variables(config)
    with pytest.raises(InputError, match="has no released files"):
        released_states(xreid, variables, config)


def test_cross_modal_interaction_without_any_is_refused():
    config = small.get_config("xreid")
    config.model.cii.on, config.model.sii.on = True, False
    with pytest.raises(InputError, match="model.cii.on"):
        checked_config(config)

"""Which settings of VLD are refused, and models of other sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import vld
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.methods.vld.losses import weighted_triplet


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("model.prompts.ids", "(7, 1, 0, 0, 5)", "end with the mark of an end"),
        ("model.prompts.ids", "(7, 8, 0, 0, 5, 8)", "have it once"),
        ("model.prompts.ids", "(7, 1, 0, 0, 5, 8, 0)", "end with the mark of an end"),
        ("model.prompts.ids", "()", "at least one value"),
        ("model.prompts.ids", "(7, -1, 0, 0, 5, 8)", "each value of it"),
        ("model.prompts.ids", "(7, 1, 0, 0" + ", 5" * 8 + ", 8)", "no more tokens than"),
        ("model.prompts.learned", "(5,)", "between the first and the last token"),
        ("model.prompts.learned", "(0, 1)", "between the first and the last token"),
        ("model.prompts.learned", "(2, 4)", "one after the other"),
        ("model.prompts.learned", "()", "at least one value"),
        ("model.hub.start", "0", "1 to 1, of blocks"),
        ("model.hub.start", "2", "1 to 1, of blocks"),
        ("model.hub.frames", "1", "be data.frames, 2, or more"),
        ("model.clip.heads", "3", "divide model.clip.width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, value, reason):
    with pytest.raises(InputError) as caught:
        checked_config(changed_config(small.get_config("vld"), {name: value}))
    assert name in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frames, start, depth", [(1, 1, 3), (3, 2, 5), (7, 1, 4)])
def test_any_number_of_frames_and_any_start(frames, start, depth):
    config = small.get_config("vld")
    config.data.frames = config.model.hub.frames = frames
    config.model.clip.depth, config.model.hub.start = depth, start
    config = checked_config(config)
    model = vld.Model(config, small.FACTS)
    variables = initial_variables(model, config)
    assert variables["params"]["hub"]["tokens"].shape == (frames, frames, 8)
    given = drawn(2, frames)

    @jax.jit
    def descriptor(frames):
        return vld.descriptor(model.apply(variables, visible(frames), train=False), config)

    found = descriptor(given)
    assert found.shape == (2, 2, 8)
    again = descriptor(given.at[1].set(0))  # frames of one tracklet do not reach the other
    np.testing.assert_allclose(again[0], found[0], rtol=1e-5, atol=1e-6)  # float32
    assert np.abs(again[1] - found[1]).max() > 1e-3


def drawn(tracklets: int, frames: int) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(tracklets, 1, frames, 64, 32, 3)), jnp.float32)


def visible(frames: jax.Array) -> Clips:
    return Clips(frames, jnp.full(frames.shape[:2], -1), ("visible",))


@pytest.mark.parametrize("on", [True, False])
def test_frames_hear_of_each_other_by_the_hub_alone(on):
    """Without it the mean over frames is all that a tracklet has of more than one."""
    config = small.get_config("vld")
    config.model.hub.on = on
    model = vld.Model(config, small.FACTS)
    variables = initial_variables(model, config)

    @jax.jit
    def features(frames):
        return model.apply(variables, visible(frames), train=False).features["class"]

    pair = drawn(2, 1)
    both = features(pair.swapaxes(0, 2))
    alone = features(jnp.tile(pair, (1, 1, 2, 1, 1, 1)))
    difference = np.abs(both - alone.mean(0)).max()
    assert (difference > 1e-4) if on else (difference < 1e-5)


def test_what_stands_behind_a_sentence_says_nothing():
    config = small.get_config("vld")
    model = vld.Model(config, small.FACTS)
    variables = initial_variables(model, config)
    texts = jax.jit(lambda variables: model.apply(variables, method="texts"))
    made = texts(variables)
    suffix = variables["params"]["prompts"]["suffix"]  # two words up to the end, then the others
    variables["params"]["prompts"]["suffix"] = suffix.at[:, 2:].multiply(-50)
    np.testing.assert_array_equal(texts(variables), made)
    variables["params"]["prompts"]["suffix"] = suffix.at[:, :1].multiply(-50)
    assert np.abs(texts(variables) - made).max() > 1e-3


def test_a_stable_softmin_does_not_vanish():
    """Far from each other, an anchor's negatives have no weight beside 1e-6, unless shifted."""
    x = 40 * np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    labels = jnp.arange(8) // 2
    distance = np.sqrt(np.square(x[:, None] - x[None]).sum(-1))
    same = np.equal.outer(labels, labels)
    far = np.where(same, distance, 0).max(1)  # exponentials of differences above 50
    near = np.where(same, np.inf, distance).min(1)
    x = jnp.asarray(x)
    np.testing.assert_allclose(weighted_triplet(x, labels), far.mean(), rtol=1e-4)
    expected = np.logaddexp(0, far - near).mean()
    value, gradient = jax.value_and_grad(lambda x: weighted_triplet(x, labels, True))(x)
    np.testing.assert_allclose(value, expected, rtol=1e-2)  # near ones weigh a little too
    assert np.isfinite(gradient).all()


def test_a_loss_in_bfloat16_is_near_that_in_float32():
    """The same variables; statistics, losses and means over frames stay float32."""
    config = small.get_config("vld")
    variables = initial_variables(vld.Model(config, small.FACTS), config)
    given = Clips(drawn(4, 2).reshape(2, 2, 2, 64, 32, 3), jnp.full((2, 2), -1))

    def total(dtype: str) -> float:
        config.model.compute_dtype = dtype
        model = vld.Model(config, small.FACTS)
        data = given, jnp.arange(2), jax.random.key(0)
        value, made = jax.jit(lambda v: vld.training_loss(model, v, *data, config))(variables)
        assert {x.dtype for x in jax.tree.leaves((value, made))} == {jnp.dtype("float32")}
        return float(value)

    # bfloat16 rounds to 2^-9, here in three blocks
    assert total("bfloat16") == pytest.approx(total("float32"), rel=2e-2)


def test_one_identity_alone_has_a_loss():
    """There is no negative then, and nothing is not a number."""
    x, labels = jnp.ones((4, 3)), jnp.zeros(4, int)
    for stable in (False, True):
        value, gradient = jax.value_and_grad(lambda x, s=stable: weighted_triplet(x, labels, s))(x)
        assert np.isfinite(value) and np.isfinite(gradient).all()

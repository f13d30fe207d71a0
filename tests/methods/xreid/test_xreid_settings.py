"""Which settings of X-ReID are refused, what the others change, and the pass before an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import xreid
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.methods.xreid.sii import LII


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("model.sii.shift", "wrapped", "be clean or cascade"),
        ("model.sii.depth", "0", "be 1 to 100"),
        ("model.sii.shift", "clean", "have quarters of the channels"),
        ("evaluation.descriptor", "V3", "be another one where model.sii.on, False"),
        ("evaluation.unknown_camera", "guess", "be refuse, mean or none"),
        ("model.prototypes.kept", "1.5", "be 0 to 1"),
        ("model.prototypes.update", "own", "be both or other"),
        ("model.prototypes.start", "never", "be each_epoch or once"),
        ("model.prototypes.statistics", "mine", "be published, batch or running"),
        ("model.prototypes.temperature", "0", "be 0.001 to 1000"),
        ("augment.erase_rule", "star", "be rectangle or block-at-own-size"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(name, value, reason):
    given = {name: value}
    if "quarters" in reason:
        given["model.clip.width"] = "6"
    if "where" in reason:
        given["model.sii.on"] = "False"
    with pytest.raises(InputError) as caught:
        checked_config(changed_config(small.get_config("xreid"), given))
    assert name in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_statistics_a_pass_takes():
    """Published: epochs 1, 2, 4, 6, … by the batch's (from 1), 3, 5, … by running ones."""
    config = small.get_config("xreid")
    model = xreid.Model(config, small.FACTS)

    def by_batch(**given) -> list:
        config.model.prototypes.update({"statistics": "published", "start": "each_epoch", **given})
        sweeps = [xreid.before_epoch(model, config, epoch) for epoch in range(6)]
        return [None if s is None else s.step == model.add_by_batch for s in sweeps]

    assert by_batch() == [True, True, False, True, False, True]
    assert by_batch(statistics="batch") == [True] * 6
    assert by_batch(statistics="running") == [False] * 6
    assert by_batch(start="once") == [True] + [None] * 5
    config.model.prototypes.on = False
    assert by_batch() == [None] * 6
    config.model.prototypes.on = True
    sweeps = [xreid.before_epoch(model, config, epoch) for epoch in (1, 3)]
    assert sweeps[0] == sweeps[1] and sweeps[0].random  # is compiled once


def drawn(tracklets: int, frames: int) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(tracklets, 1, frames, 64, 32, 3)), jnp.float32)


@pytest.fixture(scope="module")
def trained():
    config = small.get_config("xreid")
    return config, initial_variables(xreid.Model(config, small.FACTS), config)


def descriptor(config, variables, frames, cameras) -> np.ndarray:
    model = xreid.Model(config, small.FACTS)
    clips = Clips(frames, jnp.asarray(cameras)[:, None], ("visible",))

    @jax.jit
    def made(variables, clips):
        return xreid.descriptor(model.apply(variables, clips, train=False), config)[:, 0]

    return np.asarray(made(variables, clips))


def test_a_camera_is_a_row_of_the_table(trained):
    """By its number; the mean of all rows or nothing stands for an unknown one."""
    config, variables = trained
    config = config.copy_and_resolve_references()
    frames = jnp.repeat(drawn(1, 2), 4, axis=0)
    table = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    table[2] = table[:2].sum(0) / 2  # so that the mean of all is this row
    params = {**variables["params"], "cameras": {"table": jnp.asarray(table)}}
    variables = {**variables, "params": params}
    config.evaluation.unknown_camera = "mean"
    one, two, three, unknown = descriptor(config, variables, frames, [1, 2, 3, 9])
    np.testing.assert_allclose(unknown, three, rtol=1e-5, atol=1e-6)  # float32
    assert np.abs(one - two).max() > 1e-3
    config.evaluation.unknown_camera = "none"
    *_, nothing = descriptor(config, variables, frames, [1, 2, 3, 9])
    config.model.cameras.weight = 0.0
    off = descriptor(config, variables, frames, [1, 2, 3, 9])
    np.testing.assert_allclose(off, np.stack([nothing] * 4), rtol=1e-5, atol=1e-6)
    assert np.abs(nothing - unknown).max() > 1e-3


def test_unknown_cameras_are_refused_unless_something_stands_for_them():
    config = small.get_config("xreid")

    def check(camera: int) -> None:
        tracklets = [Tracklet(("a.png",), 1, c, "visible", "query") for c in (2, camera, camera)]
        xreid.check_tracklets(tracklets, small.FACTS, config)

    check(3)
    for camera in (4, -1):
        with pytest.raises(InputError, match="a.png: .* and that of 1 more is") as caught:
            check(camera)
        assert "1, 2, 3" in str(caught.value) and "\n" not in str(caught.value)
    config.evaluation.unknown_camera = "mean"
    check(-1)
    config.evaluation.unknown_camera, config.model.cameras.weight = "refuse", 0.0
    check(-1)


def test_interactions_train_the_image_tower_only_where_they_may(trained):
    config, variables = trained
    given, labels = Clips(drawn(4, 2).reshape(2, 2, 2, 64, 32, 3), jnp.ones((2, 2), int)), [0, 1]

    def gradient(detach: bool) -> dict:
        changed = config.copy_and_resolve_references()
        changed.model.sii.detach = detach
        model = xreid.Model(changed, small.FACTS)

        def loss(params):
            output, _ = model.apply(
                {**variables, "params": params}, given, train=True, mutable=["batch_stats"]
            )
            return jnp.square(output.features["interactions"]).sum() + len(labels)

        return jax.jit(jax.grad(loss))(variables["params"])

    def largest(tree) -> float:
        return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))

    alone, together = gradient(True), gradient(False)
    assert largest(alone["image"]) == 0 and largest(alone["sii"]) > 0
    assert largest(together["image"]) > 0


@pytest.mark.parametrize("border, asked", [("cyclic", [2, 3, 0, 1]), ("clamp", [0, 0, 0, 1])])
def test_long_term_interaction_asks_two_frames_before(border, asked):
    """Frame i has what the class token of that other frame alone would find in its patches."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 8)), jnp.float32)
    module = LII(2, 2, border, jnp.dtype("float32"))
    variables = module.init(jax.random.key(0), x, 4)
    found = module.apply(variables, x, 4)
    alone = jnp.concatenate([x[jnp.array(asked), :1], x[:, 1:]], axis=1)
    expected = LII(2, 0, border, jnp.dtype("float32")).apply(variables, alone, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32


def test_a_loss_in_bfloat16_is_near_that_in_float32(trained):
    """The same variables; statistics, losses and means over frames stay float32."""
    config, variables = trained
    given = Clips(drawn(4, 2).reshape(2, 2, 2, 64, 32, 3), jnp.ones((2, 2), int))
    memory = {m: jnp.ones((small.IDENTITIES, 14)) / 14**0.5 for m in ("visible", "infrared")}

    def total(dtype: str) -> float:
        changed = config.copy_and_resolve_references()
        changed.model.compute_dtype = dtype
        model = xreid.Model(changed, small.FACTS)
        data = given, jnp.arange(2), jax.random.key(0)
        value, made = jax.jit(
            lambda v: xreid.training_loss(model, {**v, "memory": memory}, *data, changed)
        )(variables)
        assert {x.dtype for x in jax.tree.leaves((value, made))} == {jnp.dtype("float32")}
        return float(value)

    # bfloat16 rounds to 2^-9, here in three blocks
    assert total("bfloat16") == pytest.approx(total("float32"), rel=3e-2)

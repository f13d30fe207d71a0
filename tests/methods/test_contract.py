"""What `methods.contract.Method` lists holds for every method."""

import inspect
import re
from dataclasses import replace
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import traverse_util

from dinogrl_jax import config as settings
from dinogrl_jax import methods
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.methods.contract import (
    Clips,
    Group,
    Method,
    Picture,
    descriptor_variants,
    variants_of,
)
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.ops import forms
from dinogrl_jax.training.state import divided

NAMES = [name for name in vars(Method) if not name.startswith("_")] + list(Method.__annotations__)


@pytest.fixture(params=methods.METHODS)
def name(request):
    return request.param


@pytest.fixture
def made(name):
    """The method in small, its model and variables."""
    config, method = small.get_config(name), methods.named(name)
    model = method.Model(config, small.FACTS)
    return method, config, model, initial_variables(model, config)


def clips(config, pairs: int, modalities=("visible", "infrared")) -> Clips:
    d, rng = config.data, np.random.default_rng(0)
    shape = (pairs, len(modalities), d.frames, d.height, d.width, 3)
    cameras = rng.choice(small.FACTS.cameras, shape[:2]).astype(np.int32)
    return Clips(jnp.asarray(rng.standard_normal(shape, np.float32)), cameras, modalities)


def after_the_pass(method, config, model, variables) -> dict:
    """Variables as the first epoch begins with them: a method may fill memories before it."""
    sweep = method.before_epoch(model, config, 0)
    if sweep is None:
        return variables
    gathered, labels = sweep.begin(variables), jnp.arange(small.IDENTITIES)
    for modality in ("visible", "infrared"):
        given = clips(config, len(labels), (modality,))
        changed, gathered = sweep.step(variables, gathered, given, labels, labels >= 0)
        variables = {**variables, **changed}
    return {**variables, **sweep.end(variables, gathered)}


def test_every_name_is_there_with_its_arguments(name):
    method = methods.named(name)
    for listed in NAMES:
        assert hasattr(method, listed), listed
        wanted = getattr(Method, listed, None)
        if inspect.isfunction(wanted) and listed != "Model":
            expected = list(inspect.signature(wanted).parameters)[1:]
            assert list(inspect.signature(getattr(method, listed)).parameters) == expected, listed


def test_settings_change_what_all_methods_have_or_add_sections_of_their_own(name):
    """A misspelt section or setting would be added in silence."""
    shared, own = settings.shared(), methods.named(name).settings()
    assert own.keys() <= shared.keys() | {"augment", "loss"}
    for section in ("data", "train", "evaluation"):
        known = shared[section].keys() | settings.KNOWN.get(section, {}).keys()
        assert own.get(section, {}).keys() <= known, section


def test_variants_are_channels_of_the_descriptor(made):
    method, config, model, variables = made
    given = clips(config, 1, ("visible",))
    shapes = jax.eval_shape(
        lambda: method.descriptor(model.apply(variables, given, train=False), config)
    )
    for channels in descriptor_variants(method, config).values():
        assert set(channels) <= set(range(shapes.shape[-1])) and len(channels)
    assert descriptor_variants(ModuleType("bare"), config) == {}


def test_the_descriptor_does_not_depend_on_its_batch(made):
    method, config, model, variables = made

    @jax.jit
    def descriptor(clips):
        return method.descriptor(model.apply(variables, clips, train=False), config)

    for modality in ("visible", "infrared"):
        whole = clips(config, 3, (modality,))
        found = descriptor(whole)
        assert found.shape[:2] == (3, len(method.part_names(config)))
        alone = replace(whole, frames=whole.frames[1:2], camera=whole.camera[1:2])
        single = descriptor(alone)
        np.testing.assert_allclose(found[1], single[0], rtol=1e-3, atol=1e-5)  # float32


def test_the_loss_has_a_gradient_for_what_is_trained_and_says_what_changed(made):
    method, config, model, variables = made
    variables = after_the_pass(*made)
    assert jax.tree.leaves(divided(variables["params"], method.groups(config))[0])
    given, labels = clips(config, 2), jnp.array([0, 1])
    key, rest = jax.random.key(0), {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        return method.training_loss(model, {"params": params, **rest}, given, labels, key, config)

    (value, made_), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    assert jnp.isfinite(value) and made_.terms["total"] == value
    assert made_.collections.keys() <= rest.keys()
    for collection, tree in made_.collections.items():
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, rest[collection])
    gradient, _ = divided(gradient, method.groups(config))
    moved = [float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradient)]
    assert np.mean(moved) > 0.5  # a bias in front of a normalisation has none


def test_a_gpus_forms_compute_what_the_definitions_compute(made):
    """The loss and its gradient, in float64, where only the order of sums differs."""
    method, config, model, variables = made
    with jax.enable_x64(True):
        config.model.compute_dtype = "float64"
        model = method.Model(config, small.FACTS)
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), after_the_pass(*made))
        given = clips(config, 2)
        given = replace(given, frames=given.frames.astype(jnp.float64))
        rest, key = {k: v for k, v in wide.items() if k != "params"}, jax.random.key(0)

        def loss(params):
            variables = {"params": params, **rest}
            labels = jnp.array([0, 1])
            return method.training_loss(model, variables, given, labels, key, config)[0]

        found = []
        for which in (("fast", "gpu"), ("plain", "gpu")):
            with forms.using(*which):
                found.append(jax.jit(jax.value_and_grad(loss))(wide["params"]))
        (fast, gradient), (plain, expected) = found
        np.testing.assert_allclose(fast, plain, rtol=1e-9)
        largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-7 * largest)


def test_every_group_has_parameters_and_a_rate_that_is_positive_or_none(made):
    """A group that no parameter falls into is a pattern that was misspelt."""
    method, config, _, variables = made
    paths = traverse_util.flatten_dict(variables["params"], sep="/")
    groups = method.groups(config)
    first = [next((g for g in groups if re.fullmatch(g.pattern, p)), None) for p in paths]
    for group in groups:
        assert isinstance(group, Group)
        assert any(group is g for g in first), group.pattern
        if group.rate is not None:
            assert float(group.rate(jnp.asarray(0))) > 0


def test_variants_are_configurations(name):
    config = small.get_config(name)
    for settings_ in variants_of(methods.named(name)).values():
        assert checked_config(changed_config(config, settings_)).method == name


def test_a_method_without_variants_has_one():
    assert list(variants_of(ModuleType("bare")).values()) == [{}]


def test_pictures_are_drawn(made):
    method, config, model, variables = made
    for picture in method.pictures(config).values():
        assert isinstance(picture, Picture)
        given = clips(config, 2, ("visible",))
        arrays = jax.tree.map(np.asarray, picture.compute(model, variables, given))
        drawn = picture.draw(np.asarray(given.frames[:, 0]), arrays)
        assert len(drawn) == 2 and all(p.dtype == np.uint8 and p.ndim == 3 for p in drawn)
        for p in drawn:  # labels stand beside rows and columns of equal size
            assert p.shape[0] % max(len(picture.rows), 1) == 0
            assert p.shape[1] % max(len(picture.columns), 1) == 0


def test_files_have_rules_in_both_directions(made):
    method, config, _, variables = made
    known = variables["params"].keys()
    for file in method.released_files(config).values():
        assert file.name and set(file.modules) <= known
    for weights in method.starting_weights(config).values():
        assert weights.title and weights.source
    assert set(method.starting_weights(config)) == set(config.pretrained) - {"model"}

"""CLIP's towers against golden values of the published modules, gradients too."""

from functools import cache, partial
from pathlib import Path

import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dinogrl_jax.models.clip import ImageTower, TextTower, clip_settings, text_settings
from dinogrl_jax.models.transformer import patches
from dinogrl_jax.ops import forms
from dinogrl_jax.weights.conversion import to_state, to_variables
from dinogrl_jax.weights.published import CLIP_IMAGE, CLIP_TEXT

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "clip_components.npz")
SMALL = ConfigDict(
    {
        "patch": 4,
        "stride": 4,
        "width": 16,
        "depth": 12,
        "heads": 2,
        "embedding": 10,
        "activation": "quick_gelu",
        "text": {"width": 16, "depth": 3, "heads": 2, "positions": 77},
    }
)
FLOAT32 = jnp.dtype("float32")
QUICKLY = {"xla_backend_optimization_level": 0}  # each program runs once
END = 15  # the place of the last token of the golden prompts
WAYS = [
    pytest.param(dtype, form, policy, id=f"{dtype}-{form}-{policy}")
    for dtype, form, policy in [
        ("float64", "plain", "nothing"),
        ("float64", "fast", "blocks"),
        ("float32", "fast", "elementwise"),
    ]
]


@cache
def state_of(component):
    return fill.state_dict("clip_components_manifest.json", int(GOLDEN["seed"]))[component]


def image_outputs(tower, frames, class_offset=None, between=None):
    """What golden values are of: the stream before the last block, tokens, projected tokens."""
    tokens = tower(frames, class_offset, between)
    last = tower.final_norm(tokens.last)
    return tokens.before_last, last, tower.projected(last)


def tokens_of(tower, params, between=None):
    """The tower's tokens of the golden frames."""
    call = jax.jit(partial(tower.apply, between=between), compiler_options=QUICKLY)
    return call({"params": params}, jnp.asarray(GOLDEN["tower_frames"]))


def variables_of(component, rules, shapes, dtype):
    variables, _ = to_variables(state_of(component), rules, shapes, source_name=component)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), variables["params"])


def image_tower(dtype, policy="nothing", **changes):
    """A tower and its golden parameters."""
    config = ConfigDict({**SMALL, **changes})
    tower = ImageTower(config, jnp.dtype(dtype), policy)
    frames = jax.ShapeDtypeStruct((1, 12, 8, 3), jnp.float32)
    init = partial(tower.init, method=image_outputs)
    shapes = jax.eval_shape(init, jax.random.key(0), frames)
    return tower, variables_of("tower", CLIP_IMAGE, shapes, dtype)


def text_tower(dtype, policy="nothing"):
    tower = TextTower(SMALL, jnp.dtype(dtype), policy)
    prompts = jax.ShapeDtypeStruct((1, 77, 16), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: tower.init(key, x, END), jax.random.key(0), prompts)
    return tower, variables_of("text_encoder", CLIP_TEXT, shapes, dtype)


def check(made, name, dtype):
    """Float64 to 1e-12 of what is about 1: rounding of sums in another order is left alone.

    Float32 carries 1e-5 of the deviation through 12 blocks, and of the largest gradient back: the
    published towers' own float32 is 4e-6 and 4e-5 from their float64 (tests/golden, full size).
    """
    expected = GOLDEN[name]
    assert made.dtype == dtype and made.shape == expected.shape
    size = np.abs(expected).max() if "grad" in name else expected.std()
    limit = 1e-12 * max(size, 1) if dtype == "float64" else 1e-5 * size
    difference = np.abs(np.asarray(made, np.float64) - expected).max()
    assert difference <= limit, f"{name}: {difference / size:.1e} of {size:.1e}"


@pytest.mark.parametrize("dtype, form, policy", WAYS)
def test_image_tower_is_the_published_one(dtype, form, policy):
    with jax.enable_x64(dtype == "float64"), forms.using(form, "cpu"):
        tower, params = image_tower(dtype, policy)
        frames, camera = (jnp.asarray(GOLDEN[f"tower_{x}"], dtype) for x in ("frames", "camera"))

        def loss(params, camera):
            outputs = tower.apply({"params": params}, frames, camera, method=image_outputs)
            cotangents = (GOLDEN["tower_cotangent"], GOLDEN["tower_cotangent_projected"])
            pairs = zip(outputs[1:], cotangents, strict=True)
            return sum((y * y_bar).sum() for y, y_bar in pairs), outputs

        gradient_of = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICKLY)
        gradients, outputs = gradient_of(params, camera)
        names = ("tower_before_last", "tower_tokens", "tower_projected")
        for made, name in zip(outputs, names, strict=True):
            check(made, name, dtype)
        check(gradients[1], "tower_grad_camera", dtype)
        of_keys, _ = to_state({"params": gradients[0]}, CLIP_IMAGE)
        expected = {name for name in GOLDEN if name.startswith("tower_grad:")}
        assert {f"tower_grad:{key}" for key in of_keys} == expected
        for key, gradient in of_keys.items():
            check(gradient, f"tower_grad:{key}", dtype)


@pytest.mark.parametrize("dtype, form, policy", WAYS)
def test_text_tower_is_the_published_one(dtype, form, policy):
    with jax.enable_x64(dtype == "float64"), forms.using(form, "cpu"):
        tower, params = text_tower(dtype, policy)
        prompts = jnp.asarray(GOLDEN["text_prompts"], dtype)

        def loss(learned, given):
            prompts = given.at[:, 2:6].set(learned)
            features = tower.apply({"params": params}, prompts, END)
            return (features * GOLDEN["text_cotangent"]).sum(), features

        gradient_of = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICKLY)
        gradient, features = gradient_of(prompts[:, 2:6], prompts)
        check(features, "text_features", dtype)
        check(gradient, "text_grad_cls_ctx", dtype)


def test_tokens_behind_the_end_do_not_matter():
    tower, params = text_tower("float32")
    call = jax.jit(lambda x: tower.apply({"params": params}, x, END), compiler_options=QUICKLY)
    prompts = jnp.asarray(GOLDEN["text_prompts"], "float32")
    features = call(prompts)
    np.testing.assert_array_equal(call(prompts.at[:, END + 1 :].set(7.0)), features)
    # Float32, in another program: 3 blocks.
    np.testing.assert_allclose(call(prompts[:, : END + 1]), features, atol=1e-6)
    assert np.abs(call(prompts.at[:, END - 1].set(7.0)) - features).max() > 1e-3


def test_the_hook_is_called_before_each_block_and_may_change_the_number_of_tokens():
    tower, params = image_tower("float32")
    seen = []

    def between(block, tokens):
        seen.append((block, tokens.shape))
        return jnp.concatenate([tokens, tokens[:, -1:]], axis=1) if block == 11 else tokens

    made = tokens_of(tower, params, between)
    assert seen == [(i, (3, 7, 16)) for i in range(12)]
    assert made.before_last.shape == (3, 7, 16)  # what comes out of block 10, before the hook
    assert made.last.shape == (3, 8, 16)
    plain = tokens_of(tower, params)
    # Float32: the same sums in another program.
    np.testing.assert_allclose(made.before_last, plain.before_last, atol=1e-5)
    assert np.abs(made.last[:, 0] - plain.last[:, 0]).max() > 1e-3


def test_exact_gelu_is_another_tower():
    quick, params = image_tower("float32")
    exact, _ = image_tower("float32", activation="gelu")
    made = [tokens_of(tower, params).last for tower in (quick, exact)]
    assert np.abs(made[0] - made[1]).max() > 1e-2


@pytest.mark.parametrize("size, stride", [(4, 4), (4, 3), (5, 2)])
def test_patches_are_those_of_a_convolution_without_padding(size, stride):
    x = jax.random.normal(jax.random.key(0), (2, 13, 9, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))
    numbers = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=numbers
    )
    made = patches(x, size, stride) @ kernel.reshape(-1, 5)
    # Float32 sums of 75 products of about 1.
    np.testing.assert_allclose(made.reshape(expected.shape), expected, atol=2e-5)


def test_settings_are_those_of_the_published_model():
    def values(settings):
        return {name: setting.default for name, setting in settings.items()}

    config = ConfigDict({**values(clip_settings()), "text": values(text_settings())})
    image, text = ImageTower(config, FLOAT32), TextTower(config, FLOAT32)
    frames, prompts = (jax.ShapeDtypeStruct(x, "float32") for x in ((1, 224, 224, 3), (1, 77, 512)))
    shapes = [
        jax.eval_shape(partial(image.init, method=image_outputs), jax.random.key(0), frames),
        jax.eval_shape(lambda key, x: text.init(key, x, END), jax.random.key(0), prompts),
    ]
    sizes = [x.size for x in jax.tree.leaves(shapes)]
    embedding, scale = 49_408 * 512, 1
    assert sum(sizes) + embedding + scale == 149_620_737  # what OpenAI's file has

"""Parts of VLD against golden values of the published modules: tests/golden/clip_components.npz.

They are float64, of float32 parameters and inputs.
"""

from functools import partial
from pathlib import Path

import fill
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from dinogrl_jax.methods import default, vld
from dinogrl_jax.methods.vld.hub import Aggregation, with_exchanged_tokens, with_hub_tokens
from dinogrl_jax.methods.vld.losses import weighted_triplet
from dinogrl_jax.methods.vld.prompts import Prompts
from dinogrl_jax.methods.vld.weights import FIXED, LEARNED
from dinogrl_jax.models.clip import TextTower
from dinogrl_jax.models.layers import LayerNorm
from dinogrl_jax.ops import forms
from dinogrl_jax.training.optimizer import optimizer
from dinogrl_jax.training.state import divided, merged
from dinogrl_jax.weights.conversion import to_variables
from dinogrl_jax.weights.published import CLIP_TEXT
from dinogrl_jax.weights.rules import Rule, filled_template

GOLDEN = Path(__file__).parents[2] / "golden"
# Float64 leaves rounding alone; in float32 sums are rounded in another order.
LIMITS = {"float64": 1e-12, "float32": 1e-5}  # of the deviation
CONFIG = default("vld")


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


def assert_near(found, golden, dtype) -> None:
    off = np.abs(np.asarray(found, np.float64) - golden).max()
    assert off <= LIMITS[dtype.name] * max(golden.std(), np.abs(golden).max())


@pytest.mark.parametrize("where", ["near", "middle", "far"])
def test_weighted_triplet(golden, dtype, where):
    """Near, where the 1e-6 does nothing; where it begins to matter; and where it rules."""
    x, labels = jnp.asarray(golden[f"wrt_{where}_in"], dtype), jnp.asarray(golden["wrt_labels"])
    value, gradient = jax.value_and_grad(weighted_triplet)(x, labels)
    assert_near(value, golden[f"wrt_{where}"], dtype)
    assert_near(gradient, golden[f"wrt_{where}_grad"], dtype)


@pytest.mark.parametrize(
    "scale, expected",
    [(0.1, 0.7032058), (0.5, 1.816995), (1, 4.793909), (2, 10.94354), (3, 18.63263), (4, 37.2876)],
)
def test_weighted_triplet_of_waves(scale, expected):
    """The published function's values, in whose float32 distances to oneself are rounding."""
    i, j = np.mgrid[:12, :64]
    x = scale * np.sin(1.3 * i + 0.7 * j + 0.01 * i * j)
    with jax.enable_x64(True):
        value = weighted_triplet(jnp.asarray(x), jnp.array([0, 0, 1, 1, 2, 2] * 2))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_hub_tokens_come_in_and_are_exchanged(golden):
    hub = fill.state_dict("clip_components_manifest.json", int(golden["seed"]))["hub"]
    tokens = hub["prompt_embedding"]
    appended = with_hub_tokens(jnp.asarray(golden["hub_in"]), jnp.asarray(tokens))
    np.testing.assert_array_equal(appended, golden["hub_appended"])
    swapped = with_exchanged_tokens(appended, len(tokens))
    np.testing.assert_array_equal(swapped, golden["hub_swapped"])
    np.testing.assert_array_equal(with_exchanged_tokens(swapped, len(tokens)), appended)


def test_aggregation(golden, dtype, form):
    """With the norm that it shares with the image tower."""
    state = fill.state_dict("clip_components_manifest.json", int(golden["seed"]))["sta"]
    state = {key: jnp.asarray(value, dtype) for key, value in state.items()}
    params = {
        "qkv": {"kernel": state["attn.in_proj_weight"].T, "bias": state["attn.in_proj_bias"]},
        "proj": {
            "kernel": state["attn.out_proj.weight"].T,
            "bias": state["attn.out_proj.bias"],
        },
    }
    norm = {"scale": state["ln_post.weight"], "bias": state["ln_post.bias"]}
    x = jnp.asarray(golden["sta_in"], dtype)
    cotangent = jnp.asarray(golden["sta_cotangent"], dtype)

    def pulled_back(x, params, norm):
        y = Aggregation(2, dtype).apply({"params": params}, x, 3)
        y = LayerNorm(dtype, epsilon=1e-5).apply({"params": norm}, y)
        return (y * cotangent).sum(), y

    gradient = jax.grad(pulled_back, argnums=(0, 1, 2), has_aux=True)
    (of_x, of_params, of_norm), y = gradient(x, params, norm)
    assert_near(y, golden["sta_out"], dtype)
    assert_near(of_x, golden["sta_grad_in"], dtype)
    found = {
        "attn.in_proj_weight": of_params["qkv"]["kernel"].T,
        "attn.in_proj_bias": of_params["qkv"]["bias"],
        "attn.out_proj.weight": of_params["proj"]["kernel"].T,
        "attn.out_proj.bias": of_params["proj"]["bias"],
        "ln_post.weight": of_norm["scale"],
        "ln_post.bias": of_norm["bias"],
    }
    for key, value in found.items():
        assert_near(value, golden[f"sta_grad:{key}"], dtype)


def test_prompts_and_their_texts(golden, dtype, form):
    """77 embedded tokens there; here those up to the end of the sentence, which suffice."""
    states = fill.state_dict("clip_components_manifest.json", int(golden["seed"]))
    ids = CONFIG.model.prompts.ids
    assert golden["token_ids"].tolist() == [*ids, *[0] * (77 - len(ids))]
    config = CONFIG.model.clip.copy_and_resolve_references()
    config.embedding = 10
    config.text.update({"width": 16, "heads": 2, "depth": 3})
    prompts = Prompts(5, CONFIG.model.prompts.learned, len(ids), 77, 16)
    tower = TextTower(config, dtype)
    shapes = jax.eval_shape(lambda: prompts.init(jax.random.key(0)))["params"]
    of_tower = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((5, 16, 16)), 15))
    rules = {"prompt_learner": [LEARNED, *FIXED], "text_encoder": CLIP_TEXT}
    targets = {"prompt_learner": {"params": shapes}, "text_encoder": of_tower}
    found = {}
    for name, state in states.items():
        if name in rules:
            target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), targets[name])
            found[name], _ = to_variables(state, rules[name], target, source_name=name)
    found = jax.tree.map(jnp.asarray, found)
    fixed = dict(found["prompt_learner"]["params"])
    learned = fixed.pop("learned")

    @partial(jax.grad, has_aux=True)
    def gradient(learned):
        made = prompts.apply({"params": {**fixed, "learned": learned}})
        texts = tower.apply(found["text_encoder"], made, len(ids) - 1)
        return (texts * jnp.asarray(golden["text_cotangent"], dtype)).sum(), (made, texts)

    of_learned, (made, texts) = gradient(learned)
    assert_near(made, golden["text_prompts"][:, : len(ids)], dtype)
    assert_near(texts, golden["text_features"], dtype)
    assert_near(of_learned, golden["text_grad_cls_ctx"], dtype)


def test_twelve_steps_of_the_optimiser(golden):
    """With a decay so large that it shows where it is added: beside the gradient, by the rate."""
    config = CONFIG.copy_and_resolve_references()
    config.optimizer.learning_rate = float(golden["adamw_learning_rate"])
    config.optimizer.weight_decay = float(golden["adamw_weight_decay"])
    assert config.optimizer.head_multiplier == config.optimizer.bias_multiplier == 25
    epochs = golden["adamw_epochs"]
    config.train.steps_per_epoch = 1
    names = [n.partition(":")[2] for n in golden.files if n.startswith("adamw_start:")]
    paths = {name: path for name in names if (path := place(name, config))}
    assert set(names) - paths.keys() == set(golden["adamw_no_gradient"])  # are not in the model
    with jax.enable_x64(True):
        start = {path: jnp.asarray(golden[f"adamw_start:{name}"]) for name, path in paths.items()}
        groups = [
            g._replace(rate=at_epochs(g.rate, jnp.asarray(epochs)) if g.rate else None)
            for g in vld.groups(config)
        ]
        params, frozen = divided(unflatten_dict(start, sep="/"), groups)
        transform = optimizer(groups, config.optimizer)
        state = transform.init(params)
        for step in range(len(epochs)):
            gradients = {
                path: jnp.asarray(golden[f"adamw_gradient:{name}"][step], jnp.float64)
                for name, path in paths.items()
                if f"adamw_gradient:{name}" in golden
            }
            updates, state = transform.update(unflatten_dict(gradients, sep="/"), state, params)
            params = optax.apply_updates(params, updates)
            found = flatten_dict(merged(params, frozen), sep="/")
            for name, path in paths.items():
                expected = golden[f"adamw_after:{name}"][step]
                np.testing.assert_allclose(found[path], expected, rtol=1e-12)


def place(key: str, config: ConfigDict) -> str | None:
    """The path of a published tensor below "params"; None for what the model does not have."""
    for rule in vld.released_files(config)["model"].rules:
        if isinstance(rule, Rule) and (fields := rule.match_key(key)) is not None:
            return filled_template(rule.paths[0], fields).partition("/")[2]
    return None


def at_epochs(rate, epochs):
    return lambda step: rate(epochs[step])


def test_the_schedule(golden):
    """That of the published loop, and a peak below the rate, as the cosine began with epoch 0."""
    published = np.load(GOLDEN / "vld_train_float64.npz")
    config = CONFIG.copy_and_resolve_references()
    config.train.steps_per_epoch = 1
    fast, slow = (vld.groups(config)[i].rate for i in (1, 3))
    with jax.enable_x64(True):
        for epoch, rates in zip(published["schedule_epoch"], published["schedule_lr"], strict=True):
            found = [float(rate(jnp.asarray(epoch))) for rate in (slow, fast)]
            np.testing.assert_allclose(found, rates, rtol=1e-12)
        longer = [float(rate(jnp.asarray(30))) for rate in (slow, fast)]
    np.testing.assert_allclose(longer, 2.5e-7, rtol=1e-12)

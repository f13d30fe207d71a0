"""The published arithmetic in PyTorch that benchmarks compare with."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import original
import pytest
import small
import torch
from dinogrl_in_torch import golden
from dinogrl_in_torch.model import DinoGRL, Extraction, Training
from dinogrl_in_torch.sizes import SMALL
from published import places

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods import dinogrl
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.dinogrl.losses import loss
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.ops import forms
from dinogrl_jax.weights.conversion import to_variables

SIZES = SMALL._replace(identities=small.FACTS.identities)
PAIRS, LABELS = 4, (0, 0, 1, 1)
PROOF = 1e-9  # float64 leaves rounding alone, so any difference in the mathematics shows


@pytest.mark.parametrize("run", ["components", "eval"])
def test_golden_values(run):
    text, within = golden.lines(run, golden.figures(run, "cpu", gathers=True))
    assert within, text


@pytest.mark.full
@pytest.mark.parametrize("run", ["train_float64", "train_float32"])
@pytest.mark.parametrize("foreground", ["masked", "gathered"])
def test_golden_steps(run, foreground):
    text, within = golden.lines(run, golden.figures(run, "cpu", foreground == "gathered"))
    assert within, text


@pytest.fixture(scope="module")
def config():
    config = small.get_config("dinogrl")  # with what follows that of tests/benchmarks/tiny.py
    config.data.height, config.data.width = SIZES.frame
    small.sizes("dinogrl").shrink_more(config)
    config.model.compute_dtype = "float64"
    config.model.sasgl.mask_dropout = 0.0
    return config


@pytest.fixture(scope="module")
def state():
    """{file: {key: tensor}} of a model whose scales and shifts are neither zero nor one."""
    torch.manual_seed(0)
    made = {}
    for name, file in DinoGRL(SIZES, gathers=False).double().files().items():
        made[name] = {
            key: x + 0.2 * torch.rand_like(x) if x.ndim == 1 else x
            for key, x in file.state_dict().items()
        }
    return made


@pytest.fixture(scope="module")
def variables(config, state):
    with jax.enable_x64(True):
        shapes = variable_shapes(dinogrl.Model(config, small.FACTS), config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), shapes)
    made = {collection: {} for collection in shapes}
    for file in dinogrl.released_files(config).values():
        part = {c: {n: x[n] for n in file.modules if n in x} for c, x in shapes.items()}
        arrays = {key: x.numpy() for key, x in state[file.name].items()}
        converted, _ = to_variables(arrays, file.rules, part, source_name=file.name)
        for collection in made:
            made[collection] |= converted[collection]
    return made


@pytest.fixture(scope="module")
def frames():
    """Of each modality, tracklet by tracklet, channels last."""
    shape = 2, PAIRS, SIZES.frames, *SIZES.frame, 3
    return np.random.default_rng(0).standard_normal(shape)


@pytest.fixture(scope="module", params=["fast", "plain"])
def ours(request, config, variables, frames):
    """The loss and its terms, gradients and changed statistics of a step; descriptors."""
    model = dinogrl.Model(config, small.FACTS)
    clips = Clips(frames.swapaxes(0, 1), np.full((PAIRS, 2), -1, np.int32))
    labels = np.repeat(np.array(LABELS, np.int32), 2)
    kept = np.ones((PAIRS, 2, 2), bool)  # of pairs, modalities and maps
    kept[1, 0, 0] = kept[2, 1, 1] = False

    def of_step(params, clips):
        output, changed = model.apply(
            {**variables, "params": params},
            clips,
            train=True,
            kept_maps=jnp.asarray(kept.reshape(-1, 2)),
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        total, terms = loss(config.loss, output, jnp.asarray(labels))
        return total, (terms, changed["batch_stats"])

    def descriptors(variables, clips):
        return dinogrl.descriptor(model.apply(variables, clips, train=False), config)

    options = compiler_options(dtype="float64")
    with jax.enable_x64(True), forms.using(request.param, "cpu"):
        step = jax.jit(jax.value_and_grad(of_step, has_aux=True), compiler_options=options)
        (_, (terms, statistics)), gradients = step(variables["params"], clips)
        one = Clips(frames[0][:, None], np.full((PAIRS, 1), -1, np.int32), ("visible",))
        found = jax.jit(descriptors)(variables, one)
        return jax.device_get((terms, gradients, statistics, found))


def off(x, expected) -> float:
    """The largest difference, of the largest value."""
    x, expected = np.asarray(x, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(x - expected).max() / max(np.abs(expected).max(), 1e-12))


@pytest.mark.parametrize("foreground", ["masked", "gathered"])
def test_a_step_is_ours(config, state, frames, ours, foreground):
    model = DinoGRL(SIZES, foreground == "gathered").double()
    for name, file in model.files().items():
        file.load_state_dict(state[name], strict=True)
    model.train().gait.dinov2.Mask_Branch.dropout.p = 0.0
    kept = torch.ones(2, PAIRS, 2, dtype=torch.bool)
    kept[0, 1, 0] = kept[1, 2, 1] = False
    inputs = [torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2) for x in frames]
    labels = torch.tensor(LABELS * 2)
    total, found, _ = Training(model, torch.float64)(*inputs, labels, kept.flatten(0, 1))
    total.backward()
    terms, gradients, statistics, _ = ours
    for name, value in terms.items():
        assert off(found[name].detach(), value) < PROOF, name
    place = places(dinogrl, config)
    for name, file in model.files().items():
        for key, x in file.named_parameters():
            if x.requires_grad and (where := place(f"{name}:{key}")):
                expected = where.of(gradients)
                if key.endswith(golden.IN_FRONT_OF_BATCH_NORM):
                    assert max(np.abs(expected).max(), x.grad.abs().max()) < PROOF, key
                else:
                    assert off(x.grad, expected) < PROOF, key
            assert x.requires_grad == (x.grad is not None), key
        for key, x in file.named_buffers():
            if "running" in key and (where := place(f"{name}:{key}")):
                assert off(x, where.of(statistics)) < PROOF, key


def test_an_extraction_is_ours(state, frames, ours):
    model = DinoGRL(SIZES, gathers=False).double()
    for name, file in model.files().items():
        file.load_state_dict(state[name], strict=True)
    inputs = torch.from_numpy(frames[0]).flatten(0, 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = Extraction(model.eval(), torch.float64)(inputs)
    assert off(found, ours[-1]) < 1e-6  # it returns float32


def test_it_is_captured_as_a_whole():
    """PyTorch's compiler gets one graph of an extraction: a break in it would end this."""
    options = original.Options(SMALL, 8, torch.bfloat16, "cpu", "trace")
    found = original.extract_program(options)()
    assert found.shape == (4, 2 * (sum(SMALL.parts) + 1), SMALL.features)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--frames", "40"), "--frames 40: it must be a multiple of 12"),
        (("--what", "train"), "--what has 'train'"),
        (("--what", "check", "--golden", "all"), "--golden has 'all'"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, why, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["original.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        original.main()
    assert why in capsys.readouterr().err

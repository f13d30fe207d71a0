"""Kind E: one model in the spellings in which people publish and save it, read as one."""

import argparse
import re

import numpy as np
import pytest
from small_states import behind, dinov2, resnet

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights import spellings
from dinogrl_jax.weights.published import RESNET, dinov2_rules, dinov2_settings, resnet_settings

torch = pytest.importorskip("torch")

HEADS = {"heads.bottleneck.0.weight": np.ones(3, np.float32), "pixel_mean": np.ones((1, 3, 1, 1))}
DINO_HEADS = behind(
    "dino_head.", {"mlp.0.weight": np.ones((2, 4)), "last_layer.weight_g": np.ones(2)}
)


def tensors(value):
    """The same, with tensors for arrays."""
    if isinstance(value, dict):
        return {key: tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@pytest.fixture
def found(tmp_path):
    """A function that saves an object and finds the model that rules describe in it."""

    def read(value, rules):
        torch.save(tensors(value), tmp_path / "saved.pth")
        return spellings.read(tmp_path / "saved.pth", rules)

    return read


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for key, array in expected.items():
        assert state[key].dtype == array.dtype
        np.testing.assert_array_equal(state[key], array, err_msg=key)


def copy_of(state):
    return {key: value + 1 for key, value in state.items()}


def optimizer(state):
    """Adam's moments, of the same shapes as the weights, by number."""
    moments = {i: {"step": 3, "exp_avg": x, "exp_avg_sq": x} for i, x in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}


WRAPPED = {  # what a ResNet is saved in → how many tensors stand beside it
    "alone": (lambda s: s, 0),
    "DataParallel": (lambda s: behind("module.", s), 0),
    "compiled, then DistributedDataParallel": (lambda s: behind("_orig_mod.module.", s), 0),
    "Lightning": (
        lambda s: {"state_dict": behind("model.", s), "loops": {"fit_loop": {"state_dict": {}}},
                   "optimizer_states": [optimizer(s)], "hyper_parameters": {"lr": 0.1}},
        0,
    ),
    "Lightning, net beside a loss": (
        lambda s: {"state_dict": {**behind("net.", s), "criterion.centers": np.ones((5, 4))}},
        1,
    ),
    "fast-reid": (lambda s: {"model": {**behind("backbone.", s), **HEADS}, "iteration": 4}, 2),
    "torchreid": (
        lambda s: {"state_dict": {**s, "classifier.weight": np.ones((9, 4))}, "epoch": 60,
                   "rank1": np.float64(0.87), "optimizer": optimizer(s)},
        1,
    ),
    "torchreid, fc512": (lambda s: {"state_dict": {**s, "fc.0.weight": np.ones((4, 4))}}, 1),
    "ImageNet example": (
        lambda s: {"epoch": 9, "arch": "resnet50", "best_acc1": np.array(76.1),
                   "state_dict": behind("module.", s), "optimizer": optimizer(s)},
        1,
    ),
    "torchvision's references": (
        lambda s: {"model": s, "optimizer": optimizer(s), "lr_scheduler": {"last_epoch": 3},
                   "epoch": 3, "args": argparse.Namespace(lr=0.1),
                   "model_ema": {"n_averaged": np.array(3), **behind("module.", copy_of(s))}},
        len(resnet()) + 1,
    ),
    "MoCo": (
        lambda s: {"state_dict": {**behind("module.encoder_q.", s), "module.queue": np.ones((2, 3)),
                                  **behind("module.encoder_k.", copy_of(s))}},
        len(resnet()) + 1,
    ),
    "bag of tricks": (
        lambda s: {**behind("base.", s), "bottleneck.bias": np.ones(4), "classifier": np.ones(4)},
        2,
    ),
    "a dictionary of no usual name": (lambda s: {"network": {"encoder": s, "head": HEADS}}, 2),
    "DeepSpeed": (lambda s: {"module": s, "ds_config": {"a": 1}}, 0),
    "FSDP": (lambda s: {k.replace(".0.", ".0._fsdp_wrapped_module."): v for k, v in s.items()}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_a_resnet_is_found_in_what_it_is_saved_in(name, found):
    wrap, beside = WRAPPED[name]
    state, names = found(wrap(resnet()), RESNET)
    assert_same(state, resnet())
    assert len(names) == beside


def test_the_classifier_of_torchvision_has_its_own_rule(found):
    state = {
        **resnet(),
        "fc.weight": np.ones((9, 4), np.float32),
        "fc.bias": np.ones(9, np.float32),
    }
    assert_same(found({"model": state}, RESNET).state, state)


def test_what_is_no_head_and_no_other_module_is_not_left_out(found):
    state = {**resnet(), "layer1.0.extra.weight": np.ones(3, np.float32)}
    assert "layer1.0.extra.weight" in found(behind("backbone.", state), RESNET).state


def chunked(state, per_chunk=1):
    """Blocks as DINOv2's training with FSDP numbers them: a chunk, and the number among all."""

    def name(key):
        return re.sub(
            r"^blocks\.(\d+)\.", lambda i: f"blocks.{int(i[1]) // per_chunk}.{i[1]}.", key
        )

    return {name(key): value for key, value in state.items()}


def hugging_face(state):
    """DINOv2 by the names that transformers has for it, written from its code."""
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    layers = {
        "attn.proj": "attention.output.dense",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    made = {}
    for key, value in state.items():
        if not key.startswith("blocks."):
            made[names[key]] = value
            continue
        _, block, rest = key.split(".", 2)
        for ours, theirs in layers.items():
            rest = rest.replace(ours, theirs)
        if rest.startswith("attn.qkv."):
            for name, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                where = rest.replace("attn.qkv", f"attention.attention.{name}")
                made[f"encoder.layer.{block}.{where}"] = third
        else:
            made[f"encoder.layer.{block}.{rest}"] = value
    return made


def timm(state):
    """DINOv2 as timm has it: the class token with its position, other names, no mask token."""
    made = {key.replace("w12", "fc1").replace("w3", "fc2"): x for key, x in state.items()}
    del made["mask_token"]
    if "register_tokens" in made:
        made["reg_token"] = made.pop("register_tokens")
        made["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        made["pos_embed"] = state["pos_embed"][:, 1:]
    return made


DINOV2_SPELT = {
    "beside heads": lambda s: {"teacher": {**behind("backbone.", s), **DINO_HEADS}},
    "in chunks": lambda s: {"teacher": {**behind("backbone.", chunked(s)), **DINO_HEADS}},
    "in chunks of two": lambda s: {"teacher": behind("backbone.", chunked(s, per_chunk=2))},
    "beside its student": lambda s: {
        "iteration": 9,
        "model": {
            **behind("student.backbone.", chunked(copy_of(s))),
            **behind("teacher.backbone.", chunked(s)),
        },
    },
    "beside its student, as dictionaries": lambda s: {"student": copy_of(s), "teacher": s},
    "Hugging Face": hugging_face,
    "Hugging Face, below a classifier": lambda s: {
        **behind("dinov2.", hugging_face(s)), "classifier.weight": np.ones((5, 8))
    },
    "torch.hub's linear classifier": lambda s: {
        **behind("backbone.", s), "linear_head.weight": np.ones((5, 8))
    },
}  # fmt: skip


@pytest.mark.parametrize("sizes", [{}, {"registers": 3}, {"gated": True}], ids=str)
@pytest.mark.parametrize("name", DINOV2_SPELT)
def test_dinov2_is_found_in_every_spelling(name, sizes, found):
    state, _ = found(DINOV2_SPELT[name](dinov2(**sizes)), dinov2_rules(4))
    assert_same(state, dinov2(**sizes))


@pytest.mark.parametrize("sizes", [{}, {"gated": True}], ids=str)
def test_dinov2_by_timms_names(sizes, found):
    expected = dinov2(**sizes)
    state, beside = found(timm(expected), dinov2_rules(4))
    del expected["mask_token"]
    assert_same(state, expected)
    assert not beside and dinov2_settings(state)["mlp"] == ("swiglu" if sizes else "gelu")


@pytest.mark.parametrize("spelt", [lambda s: s, hugging_face, lambda s: behind("vit.", s)])
def test_a_transformer_without_layer_scale_is_no_dinov2(spelt, found):
    state = {key: value for key, value in dinov2().items() if "gamma" not in key}
    with pytest.raises(InputError, match="its blocks have no layer scale"):
        dinov2_settings(found(spelt(state), dinov2_rules(4)).state)


def test_timms_class_token_has_its_position_in_itself(found):
    published = dinov2(registers=3)
    state, _ = found(timm(published), dinov2_rules(4))
    for key in published.keys() - {"mask_token", "cls_token", "pos_embed"}:
        np.testing.assert_array_equal(state[key], published[key])
    np.testing.assert_array_equal(state["pos_embed"][:, 1:], published["pos_embed"][:, 1:])
    at_front = published["cls_token"] + published["pos_embed"][:, :1]
    np.testing.assert_array_equal(state["cls_token"] + state["pos_embed"][:, :1], at_front)
    assert dinov2_settings(state)["grid"] == 3 and dinov2_settings(state)["registers"] == 3


def test_a_resnet_by_hugging_faces_names(found):
    def name(key):
        key = re.sub(r"^(conv1|bn1)\.", r"embedder.embedder.\1.", key)
        key = re.sub(r"^layer(\d)\.", lambda s: f"encoder.stages.{int(s[1]) - 1}.layers.", key)
        key = key.replace("downsample.0", "shortcut.convolution")
        key = key.replace("downsample.1", "shortcut.normalization")
        if key.startswith("embedder."):
            return key.replace("conv1", "convolution").replace("bn1", "normalization")
        key = re.sub(r"\.conv(\d)\.", lambda n: f".layer.{int(n[1]) - 1}.convolution.", key)
        return re.sub(r"\.bn(\d)\.", lambda n: f".layer.{int(n[1]) - 1}.normalization.", key)

    renamed = {f"resnet.{name(key)}": value for key, value in resnet().items()}
    assert "resnet.encoder.stages.1.layers.0.layer.2.convolution.weight" in renamed
    state, beside = found({**renamed, "classifier.1.weight": np.ones((5, 8))}, RESNET)
    assert_same(state, resnet())
    assert beside == ["classifier.1.weight"]


def test_a_resnet_in_a_sequence(found):
    names = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    expected = resnet((1, 2, 5, 1))
    parts = {key: key.partition(".") for key in expected}
    sequence = {f"features.{names[p[0]]}.{p[2]}": expected[key] for key, p in parts.items()}
    state, beside = found({**sequence, "classifier.0.weight": np.ones(3)}, RESNET)
    assert_same(state, expected)
    assert beside == ["classifier.0.weight"]


def test_a_model_that_is_there_twice_is_refused(found):
    twice = {**behind("visible.", resnet()), **behind("infrared.", copy_of(resnet()))}
    with pytest.raises(
        InputError, match=r"holds the model 2 times, as visible\.\* and infrared\.\*"
    ):
        found(twice, RESNET)


def test_a_few_names_in_common_are_no_model(found):
    names = ("norm.weight", "norm.bias", "attention weight 1", "b\n", "")
    foreign = {f"{part}.{name}": np.ones(2) for part in ("encoder", "decoder") for name in names}
    for rules in (dinov2_rules(4), RESNET, []):
        state, beside = found(foreign, rules)
        assert state.keys() == foreign.keys() and not beside


def test_names_that_become_one_are_refused(found):
    state = chunked(dinov2())
    state["blocks.1.0.norm1.weight"] = state["blocks.0.0.norm1.weight"]
    with pytest.raises(InputError, match=r"blocks.0.0.norm1.weight: is blocks.0.norm1.weight, as"):
        found(state, dinov2_rules(4))


def test_pieces_have_to_fit_each_other(found):
    state = hugging_face(dinov2())
    state["encoder.layer.1.attention.attention.key.weight"] = np.ones((4, 5), np.float32)
    with pytest.raises(
        InputError, match=r"blocks.1.attn.qkv.weight: is in pieces of shapes \(4, 4\)"
    ):
        found(state, dinov2_rules(4))


def test_a_released_file_loses_a_prefix_and_nothing_else():
    state = {**resnet(), "foreign.weight": np.ones(2)}
    assert spellings.without_prefix(behind("model.", state), RESNET).keys() == state.keys()
    partly = {**behind("model.", resnet()), "foreign.weight": np.ones(2)}
    assert spellings.without_prefix(partly, RESNET) is partly


def test_settings_of_a_resnet():
    assert resnet_settings(resnet((1, 2))) == {"stages": (1, 2), "width": 2}
    with pytest.raises(InputError, match="no ResNet with bottlenecks"):
        resnet_settings(dinov2())
    with pytest.raises(InputError, match="no ResNet with bottlenecks"):
        resnet_settings({"layer2.0.conv3.weight": np.ones(1), "conv1.weight": np.ones(1)})

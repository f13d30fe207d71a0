"""Path rules in both directions, and what they report."""

import re
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from dinogrl_jax.weights.conversion import ConversionError, report_lines, to_state, to_variables
from dinogrl_jax.weights.rules import CONV, CONV1D, IDENTITY, LINEAR, Dropped, Rule, reshaped, under


def counter(shape):
    return np.zeros(shape, np.int64)


NORM = [
    Rule("{n}.weight", "params/{n}/scale"),
    Rule("{n}.bias", "params/{n}/bias"),
    Rule("{n}.running_mean", "statistics/{n}/mean"),
    Rule("{n}.running_var", "statistics/{n}/var"),
    Dropped("{n}.num_batches_tracked", (), counter, beside="{n}.running_mean"),
]
RULES = [
    Rule("conv1.weight", ("params/visible/kernel", "params/infrared/kernel"), CONV),
    Rule("blocks.{i:[0-9]+}.fc.weight", "params/block{i}/fc/kernel", LINEAR),
    Rule("blocks.{i:[0-9]+}.fc.bias", "params/block{i}/fc/bias"),
    Rule("theta.weight", "params/theta", reshaped((5, 1, 1), (5,))),
    Rule("mix.weight", "params/mix/kernel", CONV1D),
    *under([Rule("{n}.running_mean", "statistics/{n}/mean")], "block1.", "norms/"),
    Dropped("block1.{n}.num_batches_tracked", (), counter, beside="block1.{n}.running_mean"),
    Dropped("mask_token", (1, 3), np.ones),
    Dropped("head.{rest:.+}", None),
]
SHAPES = {
    "conv1.weight": (4, 3, 2, 2),
    "blocks.0.fc.weight": (6, 3),
    "blocks.0.fc.bias": (6,),
    "blocks.1.fc.weight": (6, 3),
    "blocks.1.fc.bias": (6,),
    "theta.weight": (5, 1, 1),
    "mix.weight": (2, 7, 1),
    "block1.bn2.running_mean": (6,),
    "block1.bn2.num_batches_tracked": (),
    "mask_token": (1, 3),
    "head.0.weight": (9, 9),
}


def random(shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def state():
    return {key: random(shape) for key, shape in SHAPES.items()}


def leaf(*shape, dtype="float32"):
    return SimpleNamespace(shape=shape, dtype=np.dtype(dtype))


def targets():
    return {
        "params": {
            "visible": {"kernel": leaf(2, 2, 3, 4)},
            "infrared": {"kernel": leaf(2, 2, 3, 4)},
            "block0": {"fc": {"kernel": leaf(3, 6), "bias": leaf(6)}},
            "block1": {"fc": {"kernel": leaf(3, 6), "bias": leaf(6)}},
            "theta": leaf(5),
            "mix": {"kernel": leaf(1, 7, 2)},
            "without_parameters": {},
        },
        "statistics": {"norms": {"bn2": {"mean": leaf(6)}}},
    }


def problems(source, rules=RULES, shapes=None):
    with pytest.raises(ConversionError, match="file.pth: cannot be converted") as caught:
        to_variables(source, rules, shapes or targets(), source_name="file.pth")
    return caught.value.problems


def test_variables_by_hand():
    source = state()
    variables, _ = to_variables(source, RULES, targets(), source_name="file.pth")
    params = variables["params"]
    for stem in ("visible", "infrared"):
        assert params[stem]["kernel"][1, 0, 2, 3] == source["conv1.weight"][3, 2, 1, 0]
    assert params["block1"]["fc"]["kernel"][2, 5] == source["blocks.1.fc.weight"][5, 2]
    assert params["mix"]["kernel"][0, 6, 1] == source["mix.weight"][1, 6, 0]
    assert params["theta"].tolist() == source["theta.weight"].ravel().tolist()
    assert variables["statistics"]["norms"]["bn2"]["mean"].shape == (6,)
    assert list(params) == list(targets()["params"]) and params["without_parameters"] == {}


def test_arrays_own_their_memory():
    source = state()
    variables, _ = to_variables(source, RULES, targets(), source_name="file.pth")
    for key in source:
        source[key][...] = np.nan
    assert np.isfinite(variables["params"]["block0"]["fc"]["bias"]).all()
    assert variables["params"]["visible"]["kernel"].flags.c_contiguous


def test_back_gives_the_same_state():
    source = state()
    variables, _ = to_variables(source, RULES, targets(), source_name="file.pth")
    back, report = to_state(variables, RULES)
    source |= {"mask_token": np.ones((1, 3)), "block1.bn2.num_batches_tracked": counter(())}
    del source["head.0.weight"]
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[key], source[key]) for key in source)
    assert back["block1.bn2.num_batches_tracked"].dtype == np.int64
    assert "7 dropped" not in report_lines(report)[0] and "2 dropped" in report_lines(report)[0]


def test_all_problems_come_together():
    source = state()
    source["blocks.0.fc.weight"] = random((8, 3))
    source["blocks.1.fc.weight"] = random((8, 3))
    source["unknown"] = source.pop("theta.weight")
    source["blocks.2.fc.bias"] = random((6,))
    source["mask_token"] = random((1, 4))
    source["blocks.0.fc.bias"] = np.arange(6)
    assert sorted(problems(source)) == [
        ("blocks.0.fc.bias", "has dtype int64, the model takes float32"),
        ("blocks.0.fc.weight", "has shape (8, 3), the model takes (6, 3)"),
        ("blocks.1.fc.weight", "has shape (8, 3), the model takes (6, 3)"),
        ("blocks.2.fc.bias", "the model has no params/block2/fc/bias"),
        ("mask_token", "has shape (1, 4), the model takes (1, 3)"),
        ("theta.weight", "is missing"),
        ("unknown", "no rule takes it"),
    ]


def test_message_has_one_line_for_each_reason():
    source = {f"key{i}": random((1,)) for i in range(500)}
    with pytest.raises(ConversionError) as caught:
        to_variables(source, [], {}, source_name="file.pth")
    assert str(caught.value).splitlines() == [
        "file.pth: cannot be converted: key0 and 499 more: no rule takes it",
    ]


def test_two_rules_and_two_fillings_are_problems():
    twice = [*RULES, Rule("blocks.0.fc.bias", "params/other")]
    assert ("blocks.0.fc.bias", f"several rules take it: {RULES[2].key}, blocks.0.fc.bias") in (
        problems(state(), twice)
    )
    other = [*RULES, Rule("again", "params/theta", IDENTITY)]
    assert problems(state() | {"again": random((5,))}, other) == (
        ("again", "another key fills params/theta as well"),
    )


def test_a_target_without_a_rule_is_a_problem():
    shapes = targets() | {"extra": {"scale": leaf(1)}}
    assert problems(state(), shapes=shapes) == (("extra/scale", "no rule fills it"),)


def test_a_layout_that_does_not_fit_the_model_is_a_problem():
    shapes = targets()
    shapes["params"]["theta"] = leaf(7)
    assert problems(state(), shapes=shapes) == (
        ("theta.weight", "shape (7,) of the model cannot be reshaped"),
    )


@pytest.mark.parametrize(
    ("source", "target", "accepted"),
    [
        ("float16", "float32", True),
        (ml_dtypes.bfloat16, "float32", True),
        (ml_dtypes.float8_e4m3fn, "float32", True),
        ("float32", "float64", True),
        ("float64", "float32", False),
        ("float32", ml_dtypes.bfloat16, False),
        ("int64", "float32", False),
        ("int32", "int64", False),
        ("complex64", "float32", False),
        ("bool", "float32", False),
    ],
)
def test_dtypes(source, target, accepted):
    values = (np.array([0.1, -2.0, 1e-3]) * 3).astype(source)
    rules, shapes = [Rule("a", "params/a")], {"params": {"a": leaf(3, dtype=target)}}
    if accepted:
        variables, _ = to_variables({"a": values}, rules, shapes, source_name="f")
        assert np.array_equal(variables["params"]["a"], values.astype("float64"))
        assert variables["params"]["a"].dtype == target
    else:
        assert re.match("has dtype", dict(problems({"a": values}, rules, shapes))["a"])


def test_float64_that_was_float32_is_taken():
    values = np.append(random((7,)), [np.finfo(np.float32).max, 0]).astype(np.float64)
    shapes = {"params": {"a": leaf(9)}}
    variables, _ = to_variables({"a": values}, [Rule("a", "params/a")], shapes, source_name="f")
    assert np.array_equal(variables["params"]["a"], values)
    assert problems({"a": np.full(9, 1e300)}, [Rule("a", "params/a")], shapes)


def test_one_module_of_a_model():
    rules = under(NORM, "net.", "norms/")
    source = {"net.bn.weight": random((2,)), "net.bn.bias": random((2,))}
    shapes = {"params": {"norms": {"bn": {"scale": leaf(2), "bias": leaf(2)}}}}
    variables, _ = to_variables(source, rules, shapes, source_name="module")
    assert to_state(variables, rules)[0].keys() == source.keys()


def test_paths_of_one_key_have_to_agree():
    variables, _ = to_variables(state(), RULES, targets(), source_name="file.pth")
    variables["params"]["infrared"]["kernel"] = variables["params"]["infrared"]["kernel"] + 1
    variables["params"]["loose"] = np.zeros(1)
    with pytest.raises(ConversionError) as caught:
        to_state(variables, [*RULES, Dropped("theta.weight", (5,))], name="checkpoint")
    assert caught.value.problems == (
        ("params/infrared/kernel", "differs from another value of conv1.weight"),
        ("params/loose", "no rule takes it"),
        ("theta.weight", "is written and dropped"),
    )


def test_rules_are_checked_when_written():
    with pytest.raises(ValueError, match="different fields"):
        Rule("a.{i}", "params/a{j}")
    with pytest.raises(ValueError, match="beside"):
        Dropped("a.{i}", ())


def test_fields():
    rule = Rule("l{s:[1-4]}.{b}.{s}.w", "params/{s}{b}/w")
    assert rule.match_key("l1.02.1.w") == rule.match_path("params/102/w") == {"s": "1", "b": "02"}
    assert rule.match_key("l1.02.2.w") is rule.match_key("l5.1.5.w") is None
    assert rule.match_key("l1.a.b.1.w") is rule.match_key("l1.0.1.w\n") is None

"""Kind F: weights that are NaN or infinite are refused by name, wherever they come from."""

import ml_dtypes
import numpy as np
import pytest
import tiny_method as tiny

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.start import starting_variables, starting_variables_of_file
from dinogrl_jax.weights.conversion import (
    ConversionError,
    check_finite,
    report_lines,
    to_state,
    to_variables,
)
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.rules import LINEAR, Dropped, Rule

IDENTITIES = list("abcde")
RULES = [
    Rule("{n}.weight", "params/{n}/kernel", LINEAR),
    Rule("{n}.bias", "params/{n}/bias"),
    Dropped("head.{rest:.+}", None),
]


class Leaf:
    def __init__(self, *shape):
        self.shape, self.dtype = shape, np.dtype(np.float32)


SHAPES = {"params": {"a": {"kernel": Leaf(3, 2), "bias": Leaf(2)}, "b": {"bias": Leaf(4)}}}


def state(dtype=np.float32):
    return {
        "a.weight": np.ones((2, 3), dtype),
        "a.bias": np.ones(2, dtype),
        "b.bias": np.ones(4, dtype),
    }


def converted(source):
    return to_variables(source, RULES, SHAPES, source_name="file.pth")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_conversion_names_the_tensor_and_counts(value, dtype):
    source = state(dtype)
    source["a.weight"][1, :2] = value
    with pytest.raises(ConversionError) as caught:
        converted(source)
    assert str(caught.value) == (
        "file.pth: cannot be converted: a.weight: 2 values are NaN or infinite, as of a training "
        "that diverged"
    )
    source["b.bias"][3] = value
    with pytest.raises(ConversionError, match=r"a\.weight and 1 more: 3 values are NaN"):
        converted(source)


def test_all_problems_come_together_and_sound_weights_pass():
    source = state()
    source["b.bias"][0] = np.nan
    source["extra"] = np.ones(1)
    with pytest.raises(ConversionError) as caught:
        converted(source)
    assert [key for key, _ in caught.value.problems] == ["extra", "b.bias"]
    largest = state()
    largest["a.bias"][:] = np.finfo(np.float32).max
    variables, _ = converted(largest)
    assert np.isfinite(variables["params"]["a"]["bias"]).all()


def test_what_no_model_takes_is_not_looked_at():
    variables, report = converted({**state(), "head.scale": np.full(3, np.nan)})
    assert variables["params"].keys() == {"a", "b"}
    assert "1 dropped" in report_lines(report)[0]


def test_variables_are_looked_at_by_path():
    check_finite({"params": {"a": np.ones(3)}, "steps": np.arange(2)}, "place")
    wrong = {"params": {"a": np.array([1, np.nan, np.inf]), "b": np.array(np.nan)}}
    with pytest.raises(InputError) as caught:
        check_finite(wrong, "place")
    assert str(caught.value).startswith("place: params/a and 1 more: 3 values are NaN or infinite")


@pytest.fixture
def config():
    return tiny.get_config()


def spoilt(variables, *path):
    """Variables with one NaN at a path."""
    inner = variables
    for name in path[:-1]:
        inner = inner[name]
    leaf = np.array(inner[path[-1]])
    leaf.reshape(-1)[0] = np.nan
    inner[path[-1]] = leaf
    return variables


@pytest.mark.parametrize("part", [("params", "visible", "fc", "kernel"),
                                  ("batch_stats", "visible", "bn", "var")])  # fmt: skip
def test_a_released_model(part, config, tmp_path):
    states = released_states(tiny, spoilt(tiny.random_variables(config), *part), config)
    paths = {}
    for name, (file, (content, _)) in zip(("model", "head"), states.items(), strict=True):
        torch_files.write(tmp_path / file, content)
        paths[name] = str(tmp_path / file)
    with pytest.raises(ConversionError, match=r"model.pth: .*visible\.\S+: 1 value is NaN"):
        released_model(tiny, paths, config)


def first_and_second(variables):
    """The variables of the file of starting weights, of those of a model."""
    trees = {name: variables[name] for name in ("params", "batch_stats")}
    return {name: {"first": t["visible"], "second": t["head"]} for name, t in trees.items()}


def weights_file(config, path, *part):
    """A file of starting weights, one of them NaN if a path is given."""
    modules = first_and_second(tiny.random_variables(config))
    modules = spoilt(modules, *part) if part else modules
    content, _ = to_state(modules, tiny.starting_weights(config)["backbone"].rules)
    torch_files.write(path, content)
    return str(path)


def started(config):
    model = tiny.Model(config, tiny.FACTS)
    return starting_variables(tiny, model, tiny.FACTS, IDENTITIES, config)


def test_a_training_from_a_file(config, tmp_path):
    path = weights_file(config, tmp_path / "nan.pth", "params", "second", "fc", "kernel")
    config.model.tilt = 0.5
    with pytest.raises(InputError, match=r"nan.pth: .*second.fc.weight: 1 value is NaN"):
        starting_variables_of_file(tiny, "backbone", path, config)
    config.pretrained.backbone = path
    with pytest.raises(InputError, match=r"nan.pth: .*second.fc.weight: 1 value is NaN"):
        started(config)
    config.pretrained.backbone = weights_file(config, tmp_path / "sound.pth")
    assert "sound.pth" in started(config)[1][0]


def saved(config, folder, variables, identities, cameras):
    folder.mkdir()
    metadata = checkpoint.Metadata(config=config, identities=identities, cameras=cameras)
    checkpoint.write_checkpoint(folder, variables, metadata)
    return str(folder)


def test_a_training_from_a_converted_folder(config, tmp_path):
    path = weights_file(config, tmp_path / "sound.pth")
    made, found, _ = starting_variables_of_file(tiny, "backbone", path, config)
    config.model.tilt = 0.5
    config.pretrained.backbone = saved(found, tmp_path / "sound", made, [], [])
    started(config)
    made = spoilt(made, "batch_stats", "first", "bn", "mean")
    config.pretrained.backbone = saved(found, tmp_path / "nan", made, [], [])
    with pytest.raises(InputError, match="nan: batch_stats/first/bn/mean: 1 value is NaN"):
        started(config)


def test_a_training_from_a_trained_model(config, tmp_path):
    trained = tiny.random_variables(config)
    facts = IDENTITIES, list(tiny.FACTS.cameras)
    config.pretrained.model = saved(config, tmp_path / "sound", trained, *facts)
    started(config)
    wrong = spoilt(trained, "memory", "centres")
    config.pretrained.model = saved(config, tmp_path / "nan", wrong, *facts)
    with pytest.raises(InputError, match="nan: memory/centres: 1 value is NaN or infinite"):
        started(config)

"""Released files of any method ↔ variables: collections, files that are missing, facts."""

import jax
import numpy as np
import pytest
import tiny_method as tiny

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.weights.files import torch_files


@pytest.fixture(scope="module")
def config():
    return tiny.get_config()


@pytest.fixture(scope="module")
def variables(config):
    return tiny.random_variables(config)


@pytest.fixture(scope="module")
def paths(config, variables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    for name, (state, _) in released_states(tiny, variables, config).items():
        torch_files.write(folder / name, state)
    return {"model": str(folder / "model.pth"), "head": str(folder / "head.pth")}


def test_there_and_back(config, variables, paths):
    made, facts, reports = released_model(tiny, paths, config)
    assert facts == Facts(5, (0, 1)) and [report.name for report in reports] == list(paths.values())
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, made[collection], variables[collection])
    back = released_states(tiny, made, config)
    for path, (state, _) in zip(paths.values(), back.values(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, state, torch_files.read(path))


def test_a_memory_is_in_no_file_and_starts_from_its_initial_values(config, variables, paths):
    made, _, _ = released_model(tiny, paths, config)
    assert made.keys() == variables.keys() == {"params", "batch_stats", "memory"}
    np.testing.assert_array_equal(made["memory"]["centres"], np.ones((5, 6)))
    states = released_states(tiny, variables, config)
    assert not any("centres" in key for state, _ in states.values() for key in state)


def test_each_file_is_needed_or_not(config, paths):
    with pytest.raises(InputError, match="^head.pth .--head. is missing"):
        released_model(tiny, {"model": paths["model"]}, config)
    config = config.copy_and_resolve_references()
    config.model.head = False
    with pytest.raises(InputError, match="^head.pth .--head. is not needed"):
        released_model(tiny, paths, config)
    variables, _, _ = released_model(tiny, {"model": paths["model"]}, config)
    assert "head" not in variables["params"]
    assert list(released_states(tiny, variables, config)) == ["model.pth"]


def test_files_that_say_nothing_of_the_data_are_named(config, paths):
    swapped = {"model": paths["head"], "head": paths["model"]}
    with pytest.raises(InputError) as caught:
        released_model(tiny, swapped, config)
    message = str(caught.value)
    assert message.startswith("model.pth (--model) has no classifier.weight: given is --model ")
    assert paths["head"] in message and "\n" not in message

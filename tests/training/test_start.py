"""What a training starts from, of any method: files, converted folders, trained models."""

import jax
import numpy as np
import pytest
import tiny_method as tiny

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.checkpoint import write_checkpoint
from dinogrl_jax.training.start import starting_variables, starting_variables_of_file
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.files import torch_files

IDENTITIES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def config():
    return tiny.get_config()


@pytest.fixture
def weights_file(config, tmp_path):
    """The file of starting weights, of the first and the second module."""
    given = tiny.random_variables(config)
    modules = {
        collection: {"first": given[collection]["visible"], "second": given[collection]["head"]}
        for collection in ("params", "batch_stats")
    }
    state, _ = to_state(modules, tiny.starting_weights(config)["backbone"].rules)
    torch_files.write(tmp_path / "backbone.pth", state)
    return str(tmp_path / "backbone.pth")


def started(config, facts=tiny.FACTS, identities=tuple(IDENTITIES)):
    model = tiny.Model(config, facts)
    return starting_variables(tiny, model, facts, list(identities), config)


def saved_model(config, folder):
    """A folder with a model of random weights, and these."""
    variables = tiny.random_variables(config)
    save(config, folder, variables, IDENTITIES, list(tiny.FACTS.cameras))
    return variables


def save(config, folder, variables, identities, cameras):
    folder.mkdir()
    metadata = checkpoint.Metadata(
        config=config, identities=identities, cameras=cameras, step=7, figures=None, best=None
    )
    write_checkpoint(folder, variables, metadata)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def differing(tree, other):
    same = jax.tree.map(np.array_equal, tree, other)
    leaves = jax.tree_util.tree_leaves_with_path(same)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") for path, one in leaves if not one
    }


def test_without_any_weights(config):
    variables, (line,) = started(config)
    assert_same(variables, initial_variables(tiny.Model(config, tiny.FACTS), config))
    assert line == (
        "backbone: random weights; --config.pretrained.backbone=FILE takes https://example.org"
    )


def test_a_file_fills_its_places_and_nothing_else(config, weights_file):
    config.model.tilt = 0.25  # which the weights advise, and the user may change
    config.pretrained.backbone = weights_file
    variables, (line,) = started(config)
    given = tiny.random_variables(config)
    assert line == f"backbone: weights of {weights_file}"
    for collection in ("params", "batch_stats"):
        for module in ("visible", "head"):
            assert_same(variables[collection][module], given[collection][module])
    random = initial_variables(tiny.Model(config, tiny.FACTS), config)
    assert all("visible" in path or "head" in path for path in differing(variables, random))


def test_modules_that_the_model_lacks_are_left_out(config, weights_file):
    config.pretrained.backbone, config.model.head = weights_file, False
    variables, _ = started(config)
    visible = tiny.random_variables(tiny.get_config())["params"]["visible"]
    assert_same(variables["params"]["visible"], visible)
    assert "head" not in variables["params"]


def test_a_converted_folder_is_as_good_as_its_file(config, weights_file, tmp_path):
    made, found, report = starting_variables_of_file(tiny, "backbone", weights_file, config)
    assert report.name == weights_file and found.model.tilt == 0.5 and config.model.tilt == 0.0
    save(found, tmp_path / "made", made, [], [])
    config.pretrained.backbone = weights_file
    of_file, _ = started(config)
    config.pretrained.backbone = str(tmp_path / "made")
    assert_same(started(config)[0], of_file)
    config.model.head = False
    with pytest.raises(InputError, match="was made with other sizes in config.model"):
        started(config)
    config.method = "another"
    with pytest.raises(InputError, match="is not a folder that convert.py --from backbone made"):
        started(config)


def test_weights_of_other_sizes_name_the_settings(config, weights_file):
    config.pretrained.backbone, config.model.width = weights_file, 8
    with pytest.raises(InputError) as caught:
        started(config)
    assert str(caught.value) == (
        f"{weights_file}: is another backbone than the configured width 8, tilt 0.0: set "
        "--config.model.width=6 --config.model.tilt=0.5"
    )


def test_a_trained_model_keeps_its_memory(config, tmp_path):
    trained = saved_model(config, tmp_path / "model")
    config.pretrained.model = str(tmp_path / "model")
    variables, lines = started(config)
    assert_same(variables, trained)
    assert lines == [f"model: weights of step 7 of {tmp_path}/model"]


@pytest.mark.parametrize(
    ("facts", "random", "line"),
    [
        (
            Facts(3, (3, 8)),
            {"params/classifier/kernel", "memory/centres"},
            "classifiers: random weights, for 3 other identities",
        ),
        (
            Facts(5, (3, 8, 9)),
            {"params/cameras"},
            "tables of cameras: random weights, for 3 other cameras",
        ),
    ],
)
def test_a_trained_model_for_other_data(facts, random, line, config, tmp_path):
    trained = saved_model(config, tmp_path / "model")
    config.pretrained.model = str(tmp_path / "model")
    variables, lines = started(config, facts, IDENTITIES[: facts.identities])
    assert lines[1:] == [line]
    assert differing(variables, trained) == random


def test_a_model_of_another_method_is_refused(config, tmp_path):
    saved_model(config, tmp_path / "model")
    config.pretrained.model, config.method = str(tmp_path / "model"), "another"
    with pytest.raises(InputError, match="is a model of tiny, not of another"):
        started(config)
    config.pretrained.backbone = "backbone.pth"
    with pytest.raises(InputError, match="leave pretrained.backbone empty"):
        started(config)

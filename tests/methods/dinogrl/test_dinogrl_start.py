"""Parts of a model from published files, at the start of a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import torch
from commands import script

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import dinogrl
from dinogrl_jax.training import train
from dinogrl_jax.weights import pretrained, torch_files
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.pretrained import released_part


@pytest.fixture(scope="module")
def config():
    return small.get_config()


@pytest.fixture(scope="module")
def variables(config):
    return small.random_variables(config)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope="module")
def parts(config, variables, tmp_path_factory):
    """Files that a training starts from, of the small sizes, and the variables inside."""
    folder, paths = tmp_path_factory.mktemp("parts"), {}
    params, statistics = variables["params"], variables["batch_stats"]

    def of(tree):
        appearance = tree["appearance"]
        return {"stem": appearance["stem_visible"], "stages": appearance["stages"]}

    weights = {
        "dinov2": {"params": params["dinov2"]},
        "resnet50": {"params": of(params), "batch_stats": of(statistics)},
        "mask_branch": {
            "params": params["branches"]["mask_branch"],
            "batch_stats": statistics["branches"]["mask_branch"],
        },
    }
    for name, part in dinogrl.published_parts(config.model).items():
        state, _ = to_state(weights[name], part.rules)
        state = {key: torch.tensor(np.array(value)) for key, value in state.items()}
        if name == "resnet50":
            state |= {"fc.weight": torch.ones(1000, 128), "fc.bias": torch.ones(1000)}
        paths[name] = str(folder / f"{name}.pth")
        torch.save({"model": state} if name == "mask_branch" else state, paths[name])
    return paths


def with_parts(config, paths):
    config = config.copy_and_resolve_references()
    config.pretrained.update(paths)
    return config


def check_parts(made, given, started):
    """The parts' places hold the given variables, everything else what training started from."""
    for collection in made:
        got, source, old = made[collection], given[collection], started[collection]
        for stem in ("stem_visible", "stem_infrared"):
            assert_same(got["appearance"][stem], source["appearance"]["stem_visible"])
        for stream in ("appearance", "gait"):
            assert_same(got[stream]["stages"], source["appearance"]["stages"])
        mask = source["branches"]["mask_branch"]
        assert_same(got["branches"]["mask_branch"], mask)
        assert_same(got["branches"]["denoising_branch"], old["branches"]["denoising_branch"])
        assert_same(got["gait"]["fusion"], old["gait"]["fusion"])
        assert_same(got["pbmge"], old["pbmge"])
    assert_same(made["params"]["dinov2"], given["params"]["dinov2"])
    assert jax.tree.structure(made) == jax.tree.structure(started)


def test_training_starts_from_files(config, variables, parts):
    config = with_parts(config, parts)
    model = small.model(config)
    started = train.initial_variables(model, config)
    made, lines = pretrained.filled(started, config)
    check_parts(made, variables, started)
    assert [parts[name] in line for name, line in zip(parts, lines, strict=True)] == [True] * 3
    mesh = sharding.device_mesh()
    state = jax.device_put(train.initial_state(made, config), sharding.replicated(mesh))
    frames = jnp.zeros((2, 2, 2, 64, 32, 3))
    state, terms = train.make_step(model, config, mesh)(state, frames, jnp.array([0, 1]))
    assert np.isfinite(terms["total"])
    assert_same(state.frozen["dinov2"], variables["params"]["dinov2"])


def test_training_starts_from_converted_folders(config, variables, parts, tmp_path):
    folders = {}
    for name, path in parts.items():
        folders[name] = str(tmp_path / name)
        arguments = ("--from", name, path, "--config", small.PATH, "--out", folders[name])
        done = script("convert.py", *arguments)
        assert done.status == 0, done.errors
        assert path in done.output
    config = with_parts(config, folders)
    started = train.initial_variables(small.model(config), config)
    check_parts(pretrained.filled(started, config)[0], variables, started)
    wrong = with_parts(config, {"resnet50": folders["dinov2"]})
    with pytest.raises(InputError, match="is not a folder that convert.py --from resnet50 made"):
        pretrained.filled(started, wrong)
    wrong.pretrained.resnet50 = ""
    wrong.model.dinov2.embedding = 64
    with pytest.raises(InputError, match="another DINOv2 .* --config.model.dinov2.embedding=32"):
        pretrained.filled(started, wrong)
    with pytest.raises(InputError, match="holds a part .dinov2. and no model"):
        pretrained.check_whole(pretrained.checkpoints_of(folders["dinov2"]), 0)


def test_missing_parts_say_where_they_are(config, variables):
    made, lines = pretrained.filled(variables, config)
    assert_same(made, variables)
    for name, line in zip(("dinov2", "resnet50", "mask_branch"), lines, strict=True):
        assert f"config.pretrained.{name}=" in line and "https://" in line and "\n" not in line


def test_base_weights_for_a_small_configuration(config, parts, tmp_path):
    wide = config.copy_and_resolve_references()
    wide.model.dinov2.update({"embedding": 768, "heads": 12})
    shapes = pretrained.variable_shapes(dinogrl.Model(wide.model, 1), wide)["params"]["dinov2"]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    state, _ = to_state({"params": zeros}, dinogrl.published_parts(wide.model)["dinov2"].rules)
    path = str(tmp_path / "dinov2_vitb14_pretrain.pth")
    torch_files.write(path, state)
    with pytest.raises(InputError) as caught:
        pretrained.filled({"params": {"dinov2": {}}}, with_parts(config, {"dinov2": path}))
    message = str(caught.value)
    assert path in message and "embedding 32, heads 2" in message and "\n" not in message
    assert "--config.model.dinov2.embedding=768 --config.model.dinov2.heads=12" in message
    _, recognised, _ = released_part("dinov2", path, config)  # its own size is taken
    assert recognised.model.dinov2.embedding == 768
    with pytest.raises(InputError, match="holds no DINOv2"):
        pretrained.filled(
            {"params": {"dinov2": {}}}, with_parts(config, {"dinov2": parts["resnet50"]})
        )
    with pytest.raises(InputError, match="mask_branch.pth: cannot be converted"):
        released_part("resnet50", parts["mask_branch"], config)

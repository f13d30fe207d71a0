"""Published weights of DINOv2, ResNet-50 and the mask branch, at the start of a training."""

import argparse
import shutil

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
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import initial_variables, variable_shapes
from dinogrl_jax.training.checkpoint import checkpoints_of, model_metadata
from dinogrl_jax.training.start import starting_variables_of_file, with_published_weights
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.files import torch_files


@pytest.fixture(scope="module")
def config():
    return small.get_config()


@pytest.fixture(scope="module")
def variables(config):
    return small.random_variables(config)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope="module")
def files(config, variables, tmp_path_factory):
    """Files that a training starts from, of the small sizes, by name."""
    folder, paths = tmp_path_factory.mktemp("files"), {}
    params, statistics = variables["params"], variables["batch_stats"]

    def of(tree):
        appearance = tree["appearance"]
        return {"stem": appearance["stem_visible"], "stages": appearance["stages"]}

    given = {
        "dinov2": {"params": params["dinov2"]},
        "resnet50": {"params": of(params), "batch_stats": of(statistics)},
        "mask_branch": {
            "params": params["branches"]["mask_branch"],
            "batch_stats": statistics["branches"]["mask_branch"],
        },
    }
    for name, weights in dinogrl.starting_weights(config).items():
        state, _ = to_state(given[name], weights.rules)
        state = {key: torch.tensor(np.array(value)) for key, value in state.items()}
        if name == "resnet50":
            state |= {"fc.weight": torch.ones(1000, 128), "fc.bias": torch.ones(1000)}
        paths[name] = str(folder / f"{name}.pth")
        torch.save({"model": state} if name == "mask_branch" else state, paths[name])
    return paths


def with_weights(config, paths):
    config = config.copy_and_resolve_references()
    config.pretrained.update(paths)
    return config


def check_weights(made, given, started):
    """The places of weights hold the given variables, everything else is as it was."""
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


def test_training_starts_from_files(config, variables, files):
    config = with_weights(config, files)
    model = small.model(config)
    started = initial_variables(model, config)
    made, lines = with_published_weights(dinogrl, started, config)
    check_weights(made, variables, started)
    assert [files[name] in line for name, line in zip(files, lines, strict=True)] == [True] * 3
    mesh = sharding.device_mesh()
    state = jax.device_put(initial_state(made, dinogrl, config), sharding.replicated(mesh))
    clips = Clips(jnp.zeros((2, 2, 2, 64, 32, 3)), jnp.ones((2, 2), jnp.int32))
    state, terms = make_step(dinogrl, model, config, mesh)(state, clips, jnp.array([0, 1]))
    assert np.isfinite(terms["total"])
    assert_same(state.frozen["dinov2"], variables["params"]["dinov2"])


def test_training_starts_from_converted_folders(config, variables, files, tmp_path):
    folders = {}
    for name, path in files.items():
        folders[name] = str(tmp_path / name)
        arguments = ("--from", name, path, "--config", small.PATH, "--out", folders[name])
        done = script("convert.py", *arguments)
        assert done.status == 0, done.errors
        assert path in done.output
    config = with_weights(config, folders)
    started = initial_variables(small.model(config), config)
    check_weights(with_published_weights(dinogrl, started, config)[0], variables, started)
    wrong = with_weights(config, {"resnet50": folders["dinov2"]})
    with pytest.raises(InputError, match="is not a folder that convert.py --from resnet50 made"):
        with_published_weights(dinogrl, started, wrong)
    wrong.pretrained.resnet50 = ""
    wrong.model.dinov2.embedding = 64
    with pytest.raises(InputError, match="another DINOv2 .* --config.model.dinov2.embedding=32"):
        with_published_weights(dinogrl, started, wrong)
    with pytest.raises(InputError, match="holds weights .dinov2. and no whole model"):
        model_metadata(checkpoints_of(folders["dinov2"]), "0")


def test_missing_weights_say_where_people_get_them(config, variables):
    made, lines = with_published_weights(dinogrl, variables, config)
    assert_same(made, variables)
    for name, line in zip(("dinov2", "resnet50", "mask_branch"), lines, strict=True):
        assert f"config.pretrained.{name}=" in line and "https://" in line and "\n" not in line


def test_base_weights_for_a_small_configuration(config, files, tmp_path):
    wide = config.copy_and_resolve_references()
    wide.model.dinov2.update({"embedding": 768, "heads": 12})
    shapes = variable_shapes(dinogrl.Model(wide, Facts(1)), wide)["params"]["dinov2"]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    state, _ = to_state({"params": zeros}, dinogrl.starting_weights(wide)["dinov2"].rules)
    path = str(tmp_path / "dinov2_vitb14_pretrain.pth")
    torch_files.write(path, state)
    with pytest.raises(InputError) as caught:
        with_published_weights(
            dinogrl, {"params": {"dinov2": {}}}, with_weights(config, {"dinov2": path})
        )
    message = str(caught.value)
    assert path in message and "embedding 32, heads 2" in message and "\n" not in message
    assert "--config.model.dinov2.embedding=768 --config.model.dinov2.heads=12" in message
    _, own, _ = starting_variables_of_file(dinogrl, "dinov2", path, config)
    assert own.model.dinov2.embedding == 768  # its own size is taken
    with pytest.raises(InputError, match="holds no DINOv2"):
        with_published_weights(
            dinogrl, {"params": {"dinov2": {}}}, with_weights(config, {"dinov2": files["resnet50"]})
        )
    with pytest.raises(InputError, match="mask_branch.pth: cannot be converted"):
        starting_variables_of_file(dinogrl, "resnet50", files["mask_branch"], config)


def test_weights_in_folders_and_beside_other_things(config, variables, files, tmp_path):
    (tmp_path / "hub").mkdir()
    shutil.copy(files["dinov2"], tmp_path / "hub" / "pytorch_model.bin")
    (tmp_path / "hub" / "config.json").write_text("{}")
    state = torch.load(files["resnet50"], weights_only=True)
    wrapped = {f"backbone.{key}": value for key, value in state.items()}
    wrapped |= {"heads.weight": torch.ones(3), "pixel_mean": torch.ones(3)}
    torch.save({"model": wrapped, "args": argparse.Namespace(lr=1)}, tmp_path / "reid.pth")
    places = {"dinov2": str(tmp_path / "hub"), "resnet50": str(tmp_path / "reid.pth")}
    config = with_weights(config, {**files, **places})
    started = initial_variables(small.model(config), config)
    made, lines = with_published_weights(dinogrl, started, config)
    check_weights(made, variables, started)
    assert lines[1].endswith("reid.pth; 2 tensors beside them are left out")
    arguments = ("--config", small.PATH, "--out", tmp_path / "made")
    done = script("convert.py", "--from", "resnet50", places["resnet50"], *arguments)
    assert done.status == 0, done.errors
    assert "2 beside the model, left out: model.heads.weight, model.pixel_mean" in done.output


def test_another_resnet_names_its_settings(config, files, tmp_path):
    stages, width = config.model.resnet.stages, config.model.resnet.width
    state = torch.load(files["resnet50"], weights_only=True)
    block = f"layer1.{stages[0]}."
    more = {key.replace("layer1.0.", block): x for key, x in state.items() if "layer1.0." in key}
    torch.save({**state, **more}, tmp_path / "more.pth")
    line = f"more.pth: is another ResNet, not the configured stages {stages}: "
    other = str((stages[0] + 1, *stages[1:])).replace(" ", "")
    flag = f"set --config.model.resnet.stages={other}"
    with pytest.raises(InputError) as caught:
        given = with_weights(config, {**files, "resnet50": str(tmp_path / "more.pth")})
        with_published_weights(dinogrl, initial_variables(small.model(config), config), given)
    assert str(caught.value).endswith(line + flag)
    deep = {
        f"layer{stage}.{i}.conv3.weight": np.ones(1, np.float32)
        for stage, blocks in enumerate((3, 4, 23, 3), start=1)
        for i in range(blocks)
    }
    path = str(tmp_path / "resnet101.pth")
    torch_files.write(path, {**deep, "conv1.weight": np.ones((width, 3, 7, 7), np.float32)})
    with pytest.raises(InputError) as caught:
        starting_variables_of_file(dinogrl, "resnet50", path, config)
    assert str(caught.value) == (
        f"{path}: is ResNet-101, not the configured stages {stages}: in the file of --config set "
        "model.resnet.stages=(3,4,23,3)"
    )


@pytest.mark.parametrize(
    ("names", "weights", "owner"),
    [
        (["visual.transformer.resblocks.0.ln_1.weight"], "resnet50", "OpenAI's CLIP"),
        (["embeddings.register_tokens", "layer.0.attention.q_proj.weight"], "dinov2", "DINOv3"),
        (["layer1.0.conv1.weight", "layer1.0.conv2.weight"], "resnet50", "ResNet-18"),
        (["blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"], "dinov2", "layer scale"),
    ],
)
def test_weights_of_another_model_say_whose_they_are(names, weights, owner, config, tmp_path):
    path = str(tmp_path / "foreign.pth")
    torch_files.write(path, {name: np.ones(2, np.float32) for name in names})
    with pytest.raises(InputError) as caught:
        starting_variables_of_file(dinogrl, weights, path, config)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{path}: ") and owner in first

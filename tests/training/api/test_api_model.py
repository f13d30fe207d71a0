"""`dinogrl_jax.load` and what it returns, on a small model of random weights."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from PIL import Image

import dinogrl_jax
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.embedding import embeddings, extraction_config, make_embed
from dinogrl_jax.training import checkpoint

STEP = 7


def write_run(folder: Path, variables: dict, config=None) -> Path:
    identities, cameras = list(range(small.IDENTITIES)), list(small.FACTS.cameras)
    metadata = checkpoint.Metadata(config or small.get_config(), identities, cameras, STEP)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    checkpoint.write_checkpoint(folder / "checkpoints", variables, metadata)
    return folder


@pytest.fixture(scope="module")
def variables():
    config = small.get_config()
    return jax.device_get(initial_variables(small.model(config), config))


@pytest.fixture(scope="module")
def run(tmp_path_factory, variables):
    return write_run(tmp_path_factory.mktemp("api") / "run", variables)


@pytest.fixture(scope="module")
def model(run):
    return dinogrl_jax.load(run, batch=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folders of one to five frames, as lists of paths; frames are of different sizes."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    made = []
    for clip in range(5):
        (folder / str(clip)).mkdir()
        made.append([folder / str(clip) / f"{i}.png" for i in range(clip + 1)])
        for i, path in enumerate(made[-1]):
            Image.fromarray(rng.integers(0, 256, (50 + i, 30, 3), np.uint8)).save(path)
    return made


def arrays(clip):
    return [np.asarray(Image.open(path)) for path in clip]


def test_it_is_what_extract_makes(model, clips, variables):
    tracklets = [Tracklet(tuple(map(str, c)), -1, -1, "infrared", "both") for c in clips]
    mesh = sharding.device_mesh()
    config = extraction_config(small.get_config(), len(clips), mesh.size, 2, 0)
    embed = make_embed(small.METHOD, small.model(config), config, mesh)
    expected = embeddings(embed, variables, tracklets, config, mesh)
    np.testing.assert_array_equal(model.embed(clips, "infrared"), expected)


def test_a_clip_may_be_arrays_pictures_paths_or_a_folder(model, clips):
    expected = model.embed(clips)
    forms = (
        [arrays(clip) for clip in clips],
        [[Image.open(path) for path in clip] for clip in clips],
        [str(clip[0].parent) for clip in clips],
        [clips[0][0], *map(arrays, clips[1:4]), clips[4]],
    )
    for form in forms:
        np.testing.assert_array_equal(model.embed(form), expected)
    same_size = np.stack([arrays(clips[2])[0]] * 3)
    np.testing.assert_array_equal(model.embed([same_size]), model.embed([[*same_size]]))


def test_any_number_has_one_shape(model, clips):
    expected = model.embed(clips)
    before = model.embed_batch._cache_size()
    for count in (1, 2, 3):
        np.testing.assert_array_equal(model.embed(clips[:count]), expected[:count])
    assert model.embed_batch._cache_size() == before
    both = model.embed(clips[:2], ["visible", "infrared"])
    np.testing.assert_array_equal(both[:1], expected[:1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no clips"),
        ([[]], "clip 0 has no frames"),
        ([[np.zeros((4, 4, 3))]], "frame 0 of clip 0 is float64 of shape"),
        ([[np.zeros((4, 4, 2), np.uint8)]], "frame 0 of clip 0 is uint8"),
        ([[np.zeros((0, 4, 3), np.uint8)]], "frame 0 of clip 0 is uint8"),
        ([[object()]], "frames are arrays of uint8"),
        ([Image.new("RGB", (4, 4))], "clip 0 is a picture"),
        ([["nowhere.png"]], "nowhere.png does not exist"),
        ([[Image.new("I", (4, 4))]], "frame 0 of clip 0 has more than 8 bits"),
    ],
)
def test_refusals(model, given, said):
    with pytest.raises(InputError, match=said):
        model.embed(given)


def test_wrong_columns(model, clips, tmp_path):
    with pytest.raises(InputError, match="modality = 'thermal'"):
        model.embed(clips, "thermal")
    with pytest.raises(InputError, match="cameras has 1 entries for 5 clips"):
        model.embed(clips, cameras=[1])
    with pytest.raises(InputError, match="holds no images"):
        model.embed([tmp_path])
    with pytest.raises(InputError, match="no such folder|holds no checkpoint"):
        dinogrl_jax.load(tmp_path / "nothing")


def test_models_are_told_apart(run, model, variables, tmp_path):
    assert repr(model) == f"Model({small.NAME}, step {STEP})"
    assert dinogrl_jax.load(run).source.fingerprint == model.source.fingerprint
    changed = jax.tree.map(lambda x: x, variables)
    leaf = jax.tree.leaves(changed["params"])[0]
    changed = jax.tree.map(lambda x: x + 1 if x is leaf else x, changed)
    other = write_run(tmp_path / "weights", changed)
    assert dinogrl_jax.load(other).source.fingerprint != model.source.fingerprint
    config = small.get_config()
    config.data.frames += 1
    other = write_run(tmp_path / "frames", variables, config)
    assert dinogrl_jax.load(other).source.fingerprint != model.source.fingerprint


def evaluated(distance: str, changed: dict = {}) -> str:  # noqa: B006
    thresholds = [
        {"false_accepts": 0.1, "distance": 2.0, "true_accepts": 0.9},
        {"false_accepts": 0.01, "distance": 1.5, "true_accepts": 0.5},
        {"false_accepts": 0.001, "distance": None, "true_accepts": None},
    ]
    content = {"step": STEP, "distance": distance, "rerank": "none"}
    return json.dumps({**content, "verification": {"thresholds": thresholds}, **changed})


def test_thresholds_are_those_of_its_own_evaluation(run, model):
    distance, file = model.source.distance, run / "evaluation.json"
    try:
        file.write_text(evaluated(distance))
        source = dinogrl_jax.load(run).source
        shares = [source.false_accepts(d) for d in (1.0, 1.5, 1.6, 2.0, 2.1)]
        assert shares == [0.01, 0.01, 0.1, 0.1, 1.0]
        for changed in ({"step": 8}, {"distance": "other"}, {"rerank": "temporal"}):
            file.write_text(evaluated(distance, changed))
            assert dinogrl_jax.load(run).source.false_accepts(1.0) is None
        file.write_text(evaluated(distance, {"verification": {"thresholds": 3}}))
        with pytest.raises(InputError, match="evaluation.json"):
            dinogrl_jax.load(run)
    finally:
        file.unlink()

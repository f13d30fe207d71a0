"""scripts/extract.py on a small model, and the manifests it reads."""

import json
import sys

import jax
import numpy as np
import pytest
import small
from commands import refusal, script
from in_process import main_of
from PIL import Image

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval import feature_file
from dinogrl_jax.retrieval.embedding import embeddings, extraction_config, make_embed
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.checkpoint import checkpoints_of, stored_variables, write_checkpoint

VISIBLE, INFRARED = "visible", "infrared"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A run's folder: checkpoints/ with a small model of random weights."""
    folder = tmp_path_factory.mktemp("run")
    config = small.get_config()
    metadata = checkpoint.Metadata(
        config, list(range(small.IDENTITIES)), list(small.FACTS.cameras), 7
    )
    (folder / "checkpoints").mkdir()
    variables = jax.device_get(initial_variables(small.model(config), config))
    write_checkpoint(folder / "checkpoints", variables, metadata)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Nine frames of different colours and sizes, f0.png … f8.png."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    for i in range(9):
        pixels = rng.integers(0, 256, (40 + 4 * i, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"f{i}.png")
    return folder


def line(*frames, **fields):
    return json.dumps({"frames": [f"f{i}.png" for i in frames], "modality": VISIBLE, **fields})


LINES = [
    line(0, 1, identity=4, camera=2),
    line(2, 3, 4, 5, modality=INFRARED, identity=4),
    line(6),
    line(7, 8, camera=1),
    line(0, 8, modality=INFRARED, identity=5, camera=3),
]


def written(frames, lines, name="tracklets.jsonl"):
    path = frames / name
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return path


@pytest.fixture(scope="module")
def shape(restored, frames):
    """Of a descriptor: its parts and their channels."""
    listed = manifest.read_tracklets(str(written(frames, LINES[:1])))
    return descriptors(restored, listed, 1).shape[1:]


def test_the_script(model_folder, frames, tmp_path, shape, restored):
    out = tmp_path / "features.npz"
    source = ("--checkpoint", model_folder, "--tracklets", written(frames, LINES))
    done = script("extract.py", *source, "--out", out, "--batch", 2)
    assert done.status == 0, done.errors
    assert f"5 tracklets, descriptors {shape}, step 7" in done.output
    saved = np.load(out)
    assert saved["embedding"].shape == (5, *shape) and saved["embedding"].dtype == np.float32
    assert np.isfinite(saved["embedding"]).all()
    assert saved["identity"].tolist() == [4, 4, -1, -1, 5]
    assert saved["camera"].tolist() == [2, -1, -1, 1, 3]
    assert saved["modality"].tolist() == [VISIBLE, INFRARED, VISIBLE, VISIBLE, INFRARED]
    assert str(saved["distance"]) == restored[2].config.evaluation.distance
    assert saved["path"].tolist() == ["f0.png", "f2.png", "f6.png", "f7.png", "f0.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]  # no draft


def test_what_it_writes_is_scored(model_folder, frames, tmp_path, shape):
    """Roles and halves come along, and the report finds the frames."""
    out = tmp_path / "features.npz"
    lines = [
        line(i, (i + 1) % 9, identity=i % 3, camera=i, modality=(VISIBLE, INFRARED)[i % 2])
        for i in range(8)
    ] + [line(8, identity=0, camera=8, role="gallery")]
    source = ("--checkpoint", model_folder, "--tracklets", written(frames, lines, "scored.jsonl"))
    done = script("extract.py", *source, "--out", out, "--halves")
    assert done.status == 0, done.errors
    saved = np.load(out)
    assert saved["role"].tolist() == ["both"] * 8 + ["gallery"]
    assert saved["embedding_first"].shape == saved["embedding_second"].shape == (9, *shape)
    done = script(
        "evaluate.py", "--features", out, "--temporal", "--frames", frames, "--out", tmp_path
    )
    assert done.status == 0, done.errors
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rerank"] == "temporal"
    assert [results[d]["queries"] for d in ("visible_to_infrared", "infrared_to_visible")] == [4, 4]
    assert results["infrared_to_visible"]["gallery"] == 5
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") > 20


@pytest.fixture(scope="module")
def restored(model_folder):
    manager = checkpoints_of(str(model_folder))
    step = checkpoint.chosen_step(manager, "best")
    metadata = checkpoint.saved_metadata(manager, step)
    model = small.METHOD.Model(metadata.config, metadata.facts)
    return model, stored_variables(small.METHOD, manager, step), metadata


def descriptors(restored, listed, batch, workers=0):
    model, variables, metadata = restored
    mesh = sharding.device_mesh()
    config = extraction_config(metadata.config, len(listed), mesh.size, batch, workers)
    tracklets = [tracklet for tracklet, _ in listed]
    embed = make_embed(small.METHOD, model, config, mesh)
    return embeddings(embed, variables, tracklets, config, mesh)


def test_any_batch_gives_the_same(restored, frames):
    listed = manifest.read_tracklets(str(written(frames, LINES)))
    alone = descriptors(restored, listed, 1)
    for batch in (2, 3, 100):
        other = descriptors(restored, listed, batch)
        # The order of float32 sums depends on the batch's size.
        assert np.abs(other - alone).max() < 1e-5 * np.abs(alone).max()
    assert (descriptors(restored, listed, 2) == descriptors(restored, listed, 2, workers=1)).all()
    reverse = descriptors(restored, listed[::-1], 2)[::-1]
    assert np.abs(reverse - alone).max() < 1e-5 * np.abs(alone).max()
    assert np.abs(alone[0] - alone[2]).max() > 1e-2 * np.abs(alone).max()


def test_frames_are_those_of_a_test(restored, frames):
    """The first of each chunk; all where there are as many as the model takes; else repeated."""
    tracklets = [line(2, 3, 4, 5), line(2, 4), line(6), line(6, 6)]
    made = descriptors(restored, manifest.read_tracklets(str(written(frames, tracklets))), 4)
    assert (made[0] == made[1]).all() and (made[2] == made[3]).all()


def test_settings_of_an_extraction():
    config = small.get_config()

    def settings(tracklets, devices, batch, workers=None):
        made = extraction_config(config, tracklets, devices, batch, workers)
        return made.evaluation.tracklets_per_batch, made.data.workers

    config.data.workers = 3
    assert settings(100, 1, None) == (16, 3)
    assert settings(100, 8, 20) == (24, 3)  # a multiple of the devices
    assert settings(5, 4, 64) == (8, 0)
    assert settings(5, 1, 64, workers=1) == (5, 1)
    for wrong in ((5, 1, 0), (5, 1, -2), (5, 1, 1, -1)):
        with pytest.raises(InputError, match="has to be"):
            settings(*wrong)


def test_settings_that_an_evaluation_may_change():
    """By name; others, unknown ones and values of another kind are refused in one line."""
    with_settings, config = extract_script().with_settings, small.get_config()
    assert with_settings(config, []) is config
    changed = with_settings(config, ["data.test_frames=dense", "seed=3"])
    assert changed.data.test_frames == "dense" and changed.seed == 3
    assert config.data.test_frames != "dense"
    for given, said in (
        ("data.test_frames=all", "data.test_frames"),
        ("data.tset_frames=dense", "data.test_frames"),
        ("model.compute_type=float32", "model.compute_type"),
        ("mesh", "mesh"),
        ("method=other", "method"),
    ):
        with pytest.raises(InputError) as caught:
            with_settings(config, [given])
        assert said in str(caught.value) and "\n" not in str(caught.value)


def extract_script():
    """scripts/extract.py as a module."""
    main_of("extract")
    return sys.modules["script_extract"]


def test_a_folder_of_folders(frames, tmp_path):
    for folder, names in {"t10": (1, 0), "t9": (3, 12, 2)}.items():
        (tmp_path / folder).mkdir()
        for i in names:
            (tmp_path / folder / f"F{i}.PNG").write_bytes((frames / "f0.png").read_bytes())
        (tmp_path / folder / "notes.txt").touch()
    listed = manifest.read_tracklets(str(tmp_path), INFRARED)
    assert [path for _, path in listed] == ["t9", "t10"]
    names = [[frame.rsplit("/", 1)[1] for frame in tracklet.frames] for tracklet, _ in listed]
    assert names == [["F2.PNG", "F3.PNG", "F12.PNG"], ["F0.PNG", "F1.PNG"]]
    assert {tracklet[1:-1] for tracklet, _ in listed} == {(-1, -1, INFRARED, "both", -1)}
    with pytest.raises(InputError, match="say its modality"):
        manifest.read_tracklets(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        manifest.read_tracklets(str(tmp_path), INFRARED)
    with pytest.raises(InputError, match="holds no folder"):
        manifest.read_tracklets(str(tmp_path / "empty"), INFRARED)


def test_a_manifest_in_all_its_forms(frames):
    lines = [
        b"\xef\xbb\xbf" + line(0, identity="Anna").encode(),
        "",
        line(1, identity=3) + "\r",
        json.dumps({"frames": ["f2.png"]}),
        line(3, identity=None, camera=None, modality=INFRARED),
    ]
    listed = manifest.read_tracklets(str(written(frames, lines)), VISIBLE)
    assert [t.modality for t, _ in listed] == [VISIBLE] * 3 + [INFRARED]
    assert [t.identity for t, _ in listed] == ["Anna", 3, -1, -1]
    columns = feature_file.tracklet_columns(listed)
    assert columns["identity"].tolist() == ["Anna", "3", "", ""]
    assert columns["camera"].tolist() == [-1] * 4


BAD = [
    ("nonsense", "is not JSON"),
    (b"\xff\xfe{}", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ('{"frames": ["f0.png"', "is not JSON"),
    ("[1, 2]", "is not an object"),
    ("{}", "frames is not a list of paths"),
    (json.dumps({"frames": [], "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": "f0.png", "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": ["f0.png", 3], "modality": VISIBLE}), "frames is not a list of paths"),
    (json.dumps({"frames": ["gone.png"], "modality": VISIBLE}), "'gone.png' does not exist"),
    (json.dumps({"frames": ["a\0b"], "modality": VISIBLE}), "does not exist"),
    (json.dumps({"frames": ["\ud800"], "modality": VISIBLE}), "does not exist"),
    (json.dumps({"frames": ["."], "modality": VISIBLE}), "'.' does not exist"),
    (json.dumps({"frames": ["f0.png"]}), "modality is 'None'"),
    (line(0, modality="thermal"), "modality is 'thermal'"),
    (line(0, modality=["visible"]), "modality is"),
    (line(0, identity=1.5), "identity is neither"),
    (line(0, identity=True), "identity is neither"),
    (line(0, identity=[1]), "identity is neither"),
    (line(0, identity=10**30), "identity is neither"),
    (line(0, camera="D3"), "give all cameras numbers, or all of them names"),
    (line(0, camera=1.5), "camera is"),
    (line(0, idenity=3), "unknown key 'idenity'"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_bad_lines_are_named(bad, reason, frames):
    path = written(frames, [LINES[0], "", bad, LINES[1]], "bad.jsonl")
    with pytest.raises(InputError) as caught:
        manifest.read_tracklets(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: line 3: ") and reason in message
    assert "\n" not in message and len(message) < 1000


def test_many_bad_lines_are_summarised(frames):
    path = written(frames, ["nonsense"] * 1000, "bad.jsonl")
    with pytest.raises(InputError, match="line 1: .*; line 2: .*; and 990 more problems"):
        manifest.read_tracklets(str(path))


def test_refusals(model_folder, frames, tmp_path):
    out = tmp_path / "features.npz"
    good = written(frames, LINES)

    def refused(checkpoint=model_folder, tracklets=good, out=out, **options):
        extra = [word for k, v in options.items() for word in (f"--{k}", v)]
        paths = ("--checkpoint", checkpoint, "--tracklets", tracklets, "--out", out)
        return refusal("extract.py", *paths, *extra)

    (frames / "text.png").write_text("no image")
    broken = json.dumps({"frames": ["text.png"], "modality": VISIBLE})
    assert "text.png is not a" in refused(
        tracklets=written(frames, [LINES[0], broken], "broken.jsonl")
    )
    assert "no checkpoint '3'" in refused(which="3")
    assert "lists no tracklets" in refused(tracklets=written(frames, [""], "empty.jsonl"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "reason"), [("none/features.npz", "cannot be written"), (".", "cannot be written")]
)
def test_a_place_that_cannot_be_written_is_refused(path, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        feature_file.check_writable(str(tmp_path / path))


def test_a_folder_that_holds_no_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        checkpoints_of(str(tmp_path / "none"))
    manager = checkpoints_of(str(tmp_path))
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoint.chosen_step(manager, "best")

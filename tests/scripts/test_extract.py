"""scripts/extract.py on a small model."""

import json
import sys
import time

import jax
import numpy as np
import pytest
import small
from commands import refusal, script, started
from in_process import main_of
from PIL import Image

from dinogrl_jax.data import pictures
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.devices import hosts, sharding
from dinogrl_jax.interface import locks
from dinogrl_jax.interface.errors import INTERRUPTED, InputError
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval import feature_file
from dinogrl_jax.retrieval.embedding import (
    embedded_batches,
    embeddings,
    extraction_config,
    make_embed,
)
from dinogrl_jax.retrieval.extraction.extracted import STANDS_IN, as_dtype
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


@pytest.fixture
def colours(model_folder, frames, done, monkeypatch):
    """extract.py in this process, of a model that sees the mean colour of each clip's frames.

    (name of the file, words …) → status, output, errors; `colours.stop_behind` batches it is ended.
    """
    main_of("extract")
    batches_made = []

    def batch_maker(stored, config, mesh):
        def colour(variables, clips):
            batches_made.append(len(clips.frames))
            if len(batches_made) > extract.most_batches:
                raise KeyboardInterrupt
            return np.asarray(clips.frames).mean((1, 3, 4))

        def batches(tracklets, **how):
            return embedded_batches(colour, {}, tracklets, config, mesh, **how)

        return batches

    def extract(out, *words, manifest=None):
        batches_made.clear()
        manifest = manifest or written(frames, LINES)
        given = ("--checkpoint", model_folder, "--tracklets", manifest, "--out", out)
        return done("extract", *given, "--batch", 1, *words)

    extract.most_batches, extract.made = 100, batches_made
    monkeypatch.setattr(sys.modules["script_extract"], "batch_maker", batch_maker)
    return extract


def test_it_goes_on_where_it_was_stopped(colours, tmp_path):
    """After any number of batches, also within one: the file is the same to the bit."""
    assert colours("whole.npz", "--halves")[0] == 0
    assert len(colours.made) == 15  # of three arrays
    whole = (tmp_path / "whole.npz").read_bytes()
    unfinished = tmp_path / "f.npz.unfinished"
    for most in (0, 3, 4, 2, 100):
        colours.most_batches = most
        status, _, errors = colours("f.npz", "--halves")
        assert status == (0 if most == 100 else INTERRUPTED), errors
        if most == 3:  # a batch that was being written
            with open(unfinished / "1-of-1/embedding.batches", "ab") as file:
                file.write(b"\3\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0half of it")
    # What has been started when Ctrl-C comes is lost: a batch of each stopped command.
    assert "embedding_first: goes on behind 1 batches" in errors
    assert arrays_of(tmp_path / "f.npz") == arrays_of(tmp_path / "whole.npz")
    assert len((tmp_path / "f.npz").read_bytes()) == len(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "whole.npz"]


def arrays_of(file):
    with np.load(file) as arrays:
        return {name: (arrays[name].dtype.str, arrays[name].tobytes()) for name in arrays}


def test_another_extraction_does_not_go_on(colours, frames, tmp_path):
    colours.most_batches = 3
    assert colours("f.npz")[0] == INTERRUPTED
    colours.most_batches = 100
    other = written(frames, LINES[::-1], "other.jsonl")
    for words, what in ((("--batch", 2), "configuration"), (("--bad-frames", "skip"), "--bad-")):
        status, _, errors = colours("f.npz", *words)
        assert status == 2 and f"of an extraction with another {what}" in errors
    status, _, errors = colours("f.npz", manifest=other)
    assert status == 2 and "another manifest" in errors
    assert colours("f.npz", "--overwrite", manifest=other)[0] == 0
    assert colours("g.npz", manifest=other)[0] == 0
    assert arrays_of(tmp_path / "f.npz") == arrays_of(tmp_path / "g.npz")


def test_a_file_is_not_overwritten_unless_asked(colours, tmp_path):
    assert colours("f.npz")[0] == 0
    before = arrays_of(tmp_path / "f.npz")
    status, _, errors = colours("f.npz", "--dtype", "float16")
    assert status == 2 and "f.npz exists: choose another --out, or say --overwrite" in errors
    assert arrays_of(tmp_path / "f.npz") == before
    status, output, _ = colours("f.npz", "--dtype", "float16", "--overwrite")
    assert status == 0 and "float16 changes a descriptor by at most" in output
    assert np.load(tmp_path / "f.npz")["embedding"].dtype == np.float16
    features = feature_file.read_features(str(tmp_path / "f.npz"))
    exact = np.frombuffer(before["embedding"][1], np.float32).reshape(features.embedding.shape)
    assert features.embedding.dtype == np.float32
    np.testing.assert_allclose(features.embedding, exact, rtol=2**-11)  # half a last place


def test_numbers_that_float16_cannot_hold():
    stored, error = as_dtype(np.full((2, 1, 3), 1.0 + 2**-12, np.float32), "float16")
    assert stored.dtype == np.float16 and error == pytest.approx(2**-12, rel=1e-3)
    with pytest.raises(InputError, match="float16 cannot hold numbers of 7e"):
        as_dtype(np.full((2, 1, 3), 7e4, np.float32), "float16")


def test_bad_frames(colours, frames, tmp_path):
    """Their tracklets are left out, or a neighbour stands in; either is listed."""
    (frames / "bad.png").write_bytes((frames / "f0.png").read_bytes()[:200])
    lines = [*LINES, json.dumps({"frames": ["f1.png", "bad.png"], "modality": VISIBLE})]
    lines.insert(1, json.dumps({"frames": ["bad.png"], "modality": INFRARED}))
    bad = written(frames, lines, "with_bad.jsonl")
    status, _, errors = colours("f.npz", manifest=bad)
    assert status == 2 and "bad.png is a damaged image" in errors
    assert colours("good.npz")[0] == 0
    good = np.load(tmp_path / "good.npz")["embedding"]
    for rule, count, gone in (("skip", 5, 2), ("neighbour", 6, 1)):
        colours.most_batches = 4
        assert colours(f"{rule}.npz", "--bad-frames", rule, manifest=bad)[0] == INTERRUPTED
        colours.most_batches = 100
        status, output, errors = colours(f"{rule}.npz", "--bad-frames", rule, manifest=bad)
        assert status == 0, errors
        made = np.load(tmp_path / f"{rule}.npz")
        assert len(made["embedding"]) == len(made["path"]) == count
        assert np.array_equal(made["embedding"][:5], good)
        listed = (tmp_path / f"{rule}.npz.left_out.jsonl").read_text().splitlines()
        listed = [json.loads(line) for line in listed]
        assert [x["path"] for x in listed if "path" in x] == ["bad.png", "f1.png"][:gone]
        assert f"{gone} tracklets are left out" in output and "damaged image" in output
    assert listed[-1] == {"frame": str(frames / "bad.png"), "reason": STANDS_IN}
    made = np.load(tmp_path / "neighbour.npz")["embedding"][5]
    assert np.array_equal(made[0], made[1])  # both frames are the first one
    only = written(frames, [lines[1]], "only_bad.jsonl")
    status, _, errors = colours("none.npz", "--bad-frames", "skip", manifest=only)
    assert status == 2 and "none of 1 tracklets can be read" in errors


def test_deep_frames_are_scaled_as_said(colours, frames, tmp_path):
    values = np.full((64, 32), 28000, np.uint16)
    Image.fromarray(values + 1500).save(frames / "warm.png")
    Image.fromarray(values).save(frames / "cold.png")
    Image.fromarray(np.full((64, 32), 36.5, np.float32)).save(frames / "degrees.tif")
    Image.fromarray(np.full((64, 32), 128, np.uint8)).save(frames / "half.png")
    names = ("warm.png", "cold.png", "half.png")
    lines = [json.dumps({"frames": [name], "modality": INFRARED}) for name in names]
    deep = written(frames, lines, "deep.jsonl")
    status, _, errors = colours("f.npz", manifest=deep)
    assert status == 2 and "more than 8 bits a channel: say data.deep_range" in errors
    status, _, errors = colours("f.npz", "--set", "data.deep_range=28000,31000", manifest=deep)
    assert status == 0, errors
    warm, cold, half = np.load(tmp_path / "f.npz")["embedding"]
    assert np.array_equal(warm, half) and (cold < warm).all()  # 127.5 is rounded to even
    degrees = pictures.decoded(str(frames / "degrees.tif"), deep_range=(20.5, 40))
    assert degrees.mode == "L" and degrees.getpixel((0, 0)) == round(16 / 19.5 * 255)
    status, _, errors = colours("g.npz", "--set", "data.deep_range=31000,28000", manifest=deep)
    assert status == 2 and "data.deep_range" in errors and "the second is larger" in errors


def test_two_extractions_do_not_write_one_file(colours, tmp_path):
    colours.most_batches = 2
    assert colours("f.npz")[0] == INTERRUPTED
    with locks.lock(tmp_path / "f.npz.unfinished/1-of-1"):
        status, _, errors = colours("f.npz")
    assert status == 2 and "is in use by process" in errors


def test_processes_make_parts_of_one_file(colours, tmp_path):
    """The last one writes it, to the bit; one that was stopped leaves the others' work."""
    assert colours("whole.npz", "--halves")[0] == 0
    status, output, _ = colours("f.npz", "--halves", "--process", "2/3")
    assert status == 0 and len(colours.made) == 6  # 2 of 5 batches of each array
    assert "part 2-of-3 is made, 9 batches of others are not yet" in output
    colours.most_batches = 2
    assert colours("f.npz", "--halves", "--process", "3/3")[0] == INTERRUPTED
    colours.most_batches = 100
    status, _, errors = colours("f.npz", "--halves", "--process", "1/2")  # of other parts now
    assert status == 0 and "embedding: goes on behind 1 batches" in errors
    assert not (tmp_path / "f.npz").exists()
    left = 15 - 6 - 2 - len(colours.made)
    status, output, _ = colours("f.npz", "--halves", "--process", "2/2")
    assert status == 0 and len(colours.made) == left and "f.npz: 5 tracklets" in output
    assert arrays_of(tmp_path / "f.npz") == arrays_of(tmp_path / "whole.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "whole.npz"]


def test_more_processes_than_batches(colours, frames, tmp_path):
    one = written(frames, LINES[:1], "one.jsonl")
    status, output, _ = colours("f.npz", "--process", "1/2", manifest=one)
    assert status == 0 and "1 batches of others are not yet" in output
    assert colours("f.npz", "--process", "2/2", manifest=one)[0] == 0
    assert len(np.load(tmp_path / "f.npz")["embedding"]) == 1


def test_processes_that_srun_starts_share(colours, monkeypatch, tmp_path):
    for name in hosts.SLURM:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert "part 2-of-2 is made, 2 batches" in colours("f.npz")[1]
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert "f.npz: 5 tracklets" in colours("f.npz")[1]
    assert len(colours.made) == 2


@pytest.mark.parametrize("text", ["2", "3/2", "0/2", "1/", "a/b"])
def test_a_part_that_is_none(colours, text):
    status, _, errors = colours("f.npz", "--process", text)
    assert status == 2 and errors.count("\n") == 1


@pytest.mark.slow
def test_two_processes_at_once(model_folder, frames, tmp_path):
    """One of them is killed; both together then make what one process makes, to the bit."""
    lines = [
        line(*(j % 9 for j in range(i, i + 4)), modality=(VISIBLE, INFRARED)[i % 2], identity=i)
        for i in range(24)
    ]
    words = ("--checkpoint", model_folder, "--tracklets", written(frames, lines, "many.jsonl"))
    words += ("--batch", 2, "--workers", 0, "--out")
    alone = script("extract.py", *words, tmp_path / "alone.npz")
    assert alone.status == 0, alone.errors
    out = tmp_path / "f.npz"

    def part(number):
        return started("extract.py", *words, out, "--process", f"{number}/2")

    first, second = part(1), part(2)
    own = tmp_path / "f.npz.unfinished/2-of-2/embedding.batches"
    while second.poll() is None and not (own.exists() and own.stat().st_size):
        time.sleep(0.01)
    second.kill()
    second.wait()
    assert first.wait() == 0
    assert not out.exists()
    kept = own.read_bytes()
    assert kept
    pair = [part(1), part(2)]
    assert [process.wait() for process in pair] == [0, 0]
    assert arrays_of(out) == arrays_of(tmp_path / "alone.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.npz", "f.npz"]


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

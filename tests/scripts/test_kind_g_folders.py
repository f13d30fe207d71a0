"""Kind G: every command takes a run, a converted model, or the folder of a step of either."""

import json
import shutil

import jax
import numpy as np
import pytest
import small
from PIL import Image

from dinogrl_jax.retrieval import embedding
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.run_folder import run_folder
from dinogrl_jax.training.stored import content_digest, stored_model

PLACES = {  # → where files about the model lie
    "run": "run",
    "run/checkpoints": "run",
    "run/checkpoints/7": "run",
    "converted": "converted",
    "converted/7": "converted",
    "alone/7": "alone",
}


def tiny_config():
    """Frames of 32×16 pixels: what a command does is the subject, not the model."""
    config = small.get_config()
    config.data.height, config.data.width = 32, 16
    small.sizes().shrink_more(config)
    return config


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A run, a converted model, and a step that was copied without its run."""
    folder, config = tmp_path_factory.mktemp("models"), tiny_config()
    identities, cameras = list(range(small.IDENTITIES)), list(small.FACTS.cameras)
    metadata = checkpoint.Metadata(config, identities, cameras, 7)
    variables = small.random_variables(config)
    run_folder(folder / "run", config)
    (folder / "converted").mkdir()
    for place in ("run/checkpoints", "converted"):
        checkpoint.write_checkpoint(folder / place, variables, metadata)
    shutil.copytree(folder / "converted/7", folder / "alone/7")
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A data set that no model has been trained on: three people, two cameras of each modality."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    lines = []
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 32, 3), np.uint8)).save(folder / f"{number}.png")
        line = {"frames": [f"{number}.png"], "identity": number // 4, "camera": number % 4 + 1}
        line |= {"modality": ("visible", "infrared")[number % 2], "split": "test"}
        lines.append(json.dumps(line))
        lines.append(json.dumps({**line, "split": "train"}))
    (folder / "people.jsonl").write_text("\n".join(lines))
    return folder / "people.jsonl"


def data_of(people) -> list[str]:
    settings = {"dataset": "manifest", "root": people, "minimum_frames": 1}
    return [f"--config.data.{name}={value}" for name, value in settings.items()]


def of_weights(embed, variables, tracklets, config, mesh, **_) -> np.ndarray:
    """Stands in for `embedding.embeddings`, which would compile: numbers that weights decide."""
    seed = int(1000 * sum(float(leaf.sum()) for leaf in jax.tree.leaves(variables)))
    return np.random.default_rng(seed).random((len(tracklets), 3, 4), np.float32)


def test_evaluate_takes_each(models, people, done, monkeypatch):
    """With the settings that it holds, on another data set, from another folder; no --config."""
    monkeypatch.setattr(embedding, "embeddings", of_weights)
    found = []
    for place in (*PLACES, "converted"):
        words = ("--workdir", models / place, "--noreport", *data_of(people))
        status, output, errors = done("evaluate", *words)
        assert status == 0 and "mAP" in output, errors
        results = json.loads((models / PLACES[place] / "evaluation.json").read_text())
        assert results.pop("model") == str(models / place) and results.pop("date")
        found.append(results)
        (models / PLACES[place] / "evaluation.json").write_text("")
    assert found[0]["step"] == 7 and all(results == found[0] for results in found)


@pytest.mark.parametrize("place", PLACES)
def test_all_lead_to_the_same_model(place, models):
    found = stored_model(models / place, "best")
    assert (found.metadata.step, found.folder) == (7, models / PLACES[place])
    assert content_digest(str(models / place)) == content_digest(str(models / "run"))


def test_a_run_and_its_settings_are_named_once(models, people, refused):
    """--config RUN/config.json alone, and what may not be another model's."""
    words = ("--config", models / "run/config.json", "--noreport", *data_of(people))
    line = refused("evaluate", *words, "--config.model.compute_dtype=float8")
    assert "model.compute_dtype = 'float8'" in line
    line = refused("evaluate", "--workdir", models / "none")
    assert "no such folder of checkpoints" in line
    line = refused("evaluate", "--workdir", models / "run", "--which", "8")
    assert "no checkpoint '8'; there is best, last, 7" in line
    line = refused("evaluate", "--features", "x.npz", "--workdir", models / "run")
    assert "leave one out" in line


def test_extract_takes_a_step(models, people, done, tmp_path, monkeypatch):
    def batches(embed, variables, tracklets, *others, wanted, **_):
        made = of_weights(embed, variables, tracklets, *others)
        for rows in np.array_split(np.arange(len(tracklets)), len(wanted)):
            yield embedding.EmbeddedBatch(made[rows], rows)

    monkeypatch.setattr(embedding, "embedded_batches", batches)
    out = tmp_path / "out.npz"
    words = ("--checkpoint", models / "run/checkpoints/7", "--tracklets", people, "--out", out)
    status, _, errors = done("extract", *words, "--workers", "0")
    assert status == 0, errors
    assert len(np.load(out)["embedding"]) == 24


def test_a_renamed_step_is_named(models, refused, tmp_path):
    shutil.copytree(models / "converted/7", tmp_path / "the_best")
    line = refused("evaluate", "--workdir", tmp_path / "the_best")
    assert "has to have the step's number as name" in line

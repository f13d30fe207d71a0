"""Prepared shards against the folders that they were made of."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from commands import refusal, script
from ml_collections import ConfigDict

from dinogrl_jax.config import shared
from dinogrl_jax.data import datasets, frames, pipeline
from dinogrl_jax.data.preparation import Encoding, prepare
from dinogrl_jax.data.readers import prepared
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.report.subjects import subject_of_tracklets


@pytest.fixture
def config(tree) -> ConfigDict:
    config = ConfigDict(shared())
    config.data.update(root=tree.write_with_frames(20, 12), height=16, width=8, frames=3, workers=0)
    config.data.update(identities_per_batch=2, tracklets_per_identity=2)
    config.evaluation.tracklets_per_batch = 4
    return config


def made(config: ConfigDict, out: Path, **settings) -> ConfigDict:
    """A configuration of the same data set, prepared."""
    prepare(config.data, str(out), workers=0, **{"frames_per_shard": 60, **settings})
    other = config.copy_and_resolve_references()
    other.data.root = str(out)
    return other


def batches(config: ConfigDict) -> list:
    train, test = datasets.read(config.data)
    with pipeline.training_batches(train, labels(train), config, steps=3) as found:
        trained = list(found)
    with pipeline.evaluation_batches(test, config) as found:
        return [*trained, *found]


def same(some: list, others: list) -> bool:
    pairs = zip(some, others, strict=True)
    return all(np.array_equal(x, y) for a, b in pairs for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_batches_to_the_bit(config, tmp_path, workers):
    other = made(config, tmp_path / "out")
    expected = batches(config)
    other.data.workers = workers
    assert same(batches(other), expected)
    other.seed = 1
    assert not same(batches(other), expected)


def test_encoding_at_the_size_of_training(config, tmp_path):
    expected = batches(config)
    assert same(batches(made(config, tmp_path / "png", encoding=Encoding("png", 16, 8))), expected)
    coarse = made(config, tmp_path / "jpg", encoding=Encoding("jpeg", 16, 8, quality=10))
    difference = np.abs(batches(coarse)[-1].frames - expected[-1].frames).mean()
    assert 0 < difference < 0.3  # 17 of 255: the coarsest steps of a plane of one colour


def test_filters_work_on_the_prepared_as_on_the_raw(config, tmp_path):
    other = made(config, tmp_path / "out")
    discard = tmp_path / "discard.txt"
    discard.write_text("Train/0001/ir/D11/91.jpg\nTrain/0001/ir/D3/96.jpg\n")
    for settings in ({"discard_train": str(discard)}, {"minimum_frames": 13}):
        config.data.update(settings)
        other.data.update(settings)
        raw, shards = (datasets.read(c.data) for c in (config, other))
        assert [len(split) for split in raw] == [len(split) for split in shards]
        for a, b in zip(sum(raw, []), sum(shards, []), strict=True):
            assert a._replace(frames=()) == b._replace(frames=(), name="")
            assert list(map(frames.file_bytes, a.frames)) == list(map(frames.file_bytes, b.frames))
        folders = (config.data.root, other.data.root)
        for split in range(2):
            named = zip((raw, shards), folders, strict=True)
            a, b = (subject_of_tracklets(x[split], root).path for x, root in named)
            assert a == b
    discard.write_text("nothing")
    with pytest.raises(InputError, match="no line names a train frame"):
        datasets.read(other.data)


def test_tensorflow_datasets_opens_the_folder(config, tmp_path):
    train, test = datasets.read(made(config, tmp_path / "out").data)
    builder = tfds.builder_from_directory(str(tmp_path / "out"))
    assert builder.info.splits["train"].num_examples == sum(len(t.frames) for t in train)
    source = builder.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    first = source[0]
    assert first["image"] == frames.file_bytes(test[0].frames[0])
    assert first["name"] == b"Test/0503/ir/D11/91.jpg"
    assert (first["identity"], first["camera"], first["modality"]) == (b"503", 11, b"infrared")
    assert builder.as_data_source("test")[3]["image"].shape == (20, 12, 3)


def test_a_stopped_preparation_goes_on(config, tmp_path, monkeypatch):
    whole = prepare(config.data, str(tmp_path / "whole"), frames_per_shard=60, workers=0)
    out, write, wrote = tmp_path / "out", prepared.file_facts, []

    def stopping(path: str) -> dict:
        wrote.append(path)
        if len(wrote) == 3:
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(prepared, "file_facts", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(config.data, str(out), frames_per_shard=60, workers=0)
    assert not prepared.is_prepared(str(out))
    with pytest.raises(InputError, match="no unfinished preparation of the same kind"):
        prepare(config.data, str(out), frames_per_shard=61, workers=0)
    done = wrote[:2]
    times = [Path(path).stat().st_mtime_ns for path in done]
    assert prepare(config.data, str(out), frames_per_shard=60, workers=0) == whole
    assert [Path(path).stat().st_mtime_ns for path in done] == times
    assert not list(out.glob(".*")) and prepared.verify(str(out)) == len(whole["files"])
    with pytest.raises(InputError, match="is prepared already: use it, or choose another folder"):
        prepare(config.data, str(out), frames_per_shard=60, workers=0)


def test_the_script_writes_in_parallel_and_verifies(config, tmp_path):
    out = tmp_path / "out"
    options = ("--root", config.data.root, "--out", out, "--frames-per-shard", 60, "--workers", 2)
    done = script("prepare.py", *options)
    assert done.status == 0 and "12 train, 12 test tracklets" in done.output, done.errors
    assert "files are as they were" in script("prepare.py", "--verify", out).output
    shards = sorted(out.glob("*.array_record-*"))
    assert len(shards) > 4
    content = bytearray(shards[0].read_bytes())
    content[1000] ^= 1
    shards[0].write_bytes(content)
    shards[1].unlink()
    message = refusal("prepare.py", "--verify", out)
    assert f"{shards[0].name} has another checksum" in message
    assert f"{shards[1].name} is missing" in message


def test_frames_that_cannot_be_prepared_are_named(config, tmp_path):
    train, _ = datasets.read(config.data)
    for path in train[0].frames:
        Path(path).unlink()
    with pytest.raises(InputError, match="91.jpg.*and 2 more problems"):
        made(config, tmp_path / "out")


def test_damage_is_named(config, tmp_path):
    other = made(config, tmp_path / "out")
    train, _ = datasets.read(other.data)
    with pytest.raises(InputError, match="#99999 cannot be read"):
        frames.file_bytes(train[0].frames[0].replace("#0", "#99999"))
    other.data.dataset = "bupt"
    with pytest.raises(InputError, match="holds data.dataset = 'vcm'"):
        datasets.read(other.data)
    other.data.update(dataset="vcm", auxiliary=True)
    with pytest.raises(InputError, match="prepared with data.auxiliary = False"):
        datasets.read(other.data)
    other.data.auxiliary = False
    index = tmp_path / "out" / prepared.INDEX_FILE
    index.write_text(index.read_text().replace('"first": 12', '"fist": 12', 1))
    with pytest.raises(InputError, match=r"tracklets.jsonl:2: is damaged"):
        datasets.read(other.data)
    about = tmp_path / "out" / prepared.ABOUT_FILE
    about.write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        datasets.read(other.data)

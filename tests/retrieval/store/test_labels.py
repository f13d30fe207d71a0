"""Labels in a gallery's database, and the people that they make."""

import json
import sqlite3

import numpy as np
import pytest
from PIL import Image
from stores import Model, descriptors

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.store import database
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.retrieval.store.labelled import labelled_people, write_labelled
from dinogrl_jax.retrieval.store.labels import (
    Label,
    stored_labels,
    stored_modality,
    stored_pictures,
    write_label,
)

PNG = [b"first", b"second"]


@pytest.fixture
def folder(tmp_path):
    """Six tracklets, the first two with frames that are there."""
    frames = [[str(tmp_path / f"{i}.png")] for i in range(6)]
    for (path,) in frames[:2]:
        Image.new("RGB", (4, 8)).save(path)
    gallery = Gallery.open(tmp_path / "g", Model())
    gallery.add(
        descriptors(6),
        modality=["visible", "infrared"] * 3,
        camera=[1, 2] * 3,
        identity=[None, None, "7", "7", "9", None],
        frames=frames,
    )
    return tmp_path / "g"


def schema(folder) -> set[str]:
    with sqlite3.connect(folder / database.FILE) as base:
        return {sql for (sql,) in base.execute("SELECT sql FROM sqlite_master") if sql}


def test_written_replaced_and_taken_back(folder):
    before = schema(folder)
    assert stored_labels(folder) == [] and schema(folder) == before  # reading changes nothing
    write_label(folder, "q", "visible", PNG, 0, "same")
    write_label(folder, "q", "visible", [], 1, "other")
    write_label(folder, "q", "visible", PNG, 1, "same")
    write_label(folder, "r", "infrared", PNG[:1], 1, "other")
    assert [x[:3] for x in stored_labels(folder)] == [
        ("q", 0, "same"), ("q", 1, "same"), ("r", 1, "other"),
    ]  # fmt: skip
    assert [x[:3] for x in stored_labels(folder, "r")] == [("r", 1, "other")]
    assert list(stored_pictures(folder, "q")) == PNG and stored_modality(folder, "r") == "infrared"
    write_label(folder, "q", "visible", [], 0, None)
    assert [x.place for x in stored_labels(folder, "q")] == [1]
    assert len(Gallery.open(folder, Model())) == 6


def test_refusals(folder, tmp_path):
    for place in (-1, 6):
        with pytest.raises(InputError, match=f"there is no tracklet {place}"):
            write_label(folder, "q", "visible", PNG, place, "same")
    assert stored_labels(folder) == []
    with pytest.raises(InputError, match="holds no tracklets yet"):
        write_label(tmp_path / "none", "q", "visible", PNG, 0, "same")
    assert not (tmp_path / "none").exists() and stored_labels(tmp_path / "none") == []
    write_label(folder, "q", "visible", PNG, 0, "same")
    for change in ("UPDATE labels SET label = 'x'", "UPDATE labels SET place = 'x'"):
        with sqlite3.connect(folder / database.FILE) as base:
            base.execute(change)
        with pytest.raises(InputError, match="a label is damaged"):
            stored_labels(folder)


def test_other_tables_are_refused_still(folder):
    with sqlite3.connect(folder / database.FILE) as base:
        base.execute("CREATE TABLE labels (content TEXT)")
    with pytest.raises(InputError, match="no gallery of this version"):
        Gallery.open(folder, Model())


def people_of(labels, identities=None):
    told = [Label(*x, 0.0) for x in labels]
    places = {x.place: "" for x in told} | (identities or {})
    people, left_out = labelled_people(told, places)
    return [(x.name, x.queries, x.places) for x in people], left_out


def test_people():
    same, other = "same", "other"
    assert people_of([]) == ([], [])
    assert people_of([("q", 1, other)]) == ([], [])
    joined = [("q", 4, same), ("r", 2, same), ("q", 2, same), ("s", 9, same), ("s", 4, other)]
    assert people_of(joined) == (
        [("person_2", ["q", "r"], [2, 4]), ("person_9", ["s"], [9])],
        [],
    )
    known = [("q", 1, same), ("r", 2, same)]
    assert people_of(known, {1: "Anna", 2: "Anna"})[0] == [("Anna", ["q", "r"], [1, 2])]
    assert people_of(known, {1: "person_2"})[0] == [
        ("person_2", ["q"], [1]), ("person__2", ["r"], [2]),
    ]  # fmt: skip


def test_people_whom_nobody_can_tell():
    same, other = "same", "other"
    people, (line,) = people_of(
        [("q", 1, same), ("r", 1, same), ("q", 2, same), ("r", 2, other), ("s", 3, same)]
    )
    assert people == [("person_3", ["s"], [3])] and line.startswith("tracklets 1, 2: the same")
    people, (line,) = people_of([("q", 1, same), ("q", 2, same)], {1: "Anna", 2: "Berta"})
    assert people == [] and "known as Anna, Berta" in line


def test_exported_as_a_manifest(folder, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "q.png")
    png = (tmp_path / "q.png").read_bytes()
    out = tmp_path / "own labels.jsonl"
    with pytest.raises(InputError, match='nobody has called a tracklet "same person" yet'):
        write_labelled(folder, out)
    write_label(folder, "q", "infrared", [png, png], 0, "same")
    write_label(folder, "q", "infrared", [], 1, "same")
    write_label(folder, "q", "infrared", [], 2, "same")  # whose frames are not there
    made = write_labelled(folder, out)
    assert (made.tracklets, made.people) == (3, 1) and "2.png is no file here" in made.left_out[0]
    train, _ = manifest.read_splits(str(out))
    assert [(x.identity, x.camera, x.modality, len(x.frames)) for x in train] == [
        ("7", 1, "visible", 1), ("7", 2, "infrared", 1), ("7", -1, "infrared", 2),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open(train[2].frames[1])), picture)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[2]["frames"][0] == "own labels_queries/q/0000.png"
    before = out.read_bytes()
    assert write_labelled(folder, out) == made and out.read_bytes() == before
    with pytest.raises(InputError, match="cannot be"):
        write_labelled(folder, folder / database.FILE / "labels.jsonl")

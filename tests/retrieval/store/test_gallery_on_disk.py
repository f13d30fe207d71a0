"""A gallery on disk: exact, whole, and of one model."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from stores import CHANNELS, PARTS, THRESHOLDS, Model, descriptors

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.locks import lock
from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.gallery import descriptor_set, no_junk
from dinogrl_jax.retrieval.nearest import nearest_entries
from dinogrl_jax.retrieval.store import database, files, gallery
from dinogrl_jax.retrieval.store.gallery import Gallery

X = descriptors(200)


def filled(folder, x=X, model=None, step=30, **options):
    """A gallery of descriptors, added some at a time; camera and time follow from the place."""
    made = Gallery.open(folder, model or Model(), **options)
    for start in range(0, len(x), step):
        places = range(start, min(start + step, len(x)))
        added = made.add(
            x[start : start + step],
            modality=["visible" if i % 2 else "infrared" for i in places],
            camera=[i % 5 for i in places],
            time=[1000.0 + i if i % 3 else None for i in places],
            name=[f"t{i}" for i in places],
        )
        assert added == len(places)
    return made


def exhaustive(name, query, x, k, allowed=None):
    """Places and distances of the k nearest, of all that are allowed, by comparing all."""
    zero = np.zeros(x.shape[1:], np.float32)
    places = np.arange(len(x)) if allowed is None else np.flatnonzero(allowed)
    distance = np.array([distances.exact_distance(name, query, x[i], zero) for i in places])
    order = np.lexsort((places, distance))[:k]
    return places[order].tolist(), distance[order].tolist()


def answer(found):
    return [x.place for x in found], [x.distance for x in found]


@pytest.mark.parametrize("name", distances.FORMULAS)
@pytest.mark.parametrize("dtype", files.DTYPES)
def test_it_is_the_exhaustive_search(few, name, dtype, tmp_path):
    made = filled(tmp_path / "g", model=Model(name), dtype=dtype)
    stored = X.astype(files.DTYPES[dtype]).astype(np.float32)
    rng = np.random.default_rng(1)
    # one that many equal, one of the gallery, one between, one from elsewhere
    for query in (X[66], X[3], (X[4] + X[5]) / 2, rng.standard_normal(X[0].shape, np.float32)):
        for k in (1, 20, 300):
            assert answer(made.search(query, k)) == exhaustive(name, query, stored, k)


def test_it_agrees_with_the_search_of_evaluations(few, tmp_path):
    made = filled(tmp_path / "g")
    query = descriptors(5, seed=3)
    sets = descriptor_set(query, np.zeros(5, int)), descriptor_set(X, np.ones(200, int))
    places, distance = nearest_entries(*sets, 10, no_junk)
    for row, expected in zip(
        query, zip(places.tolist(), distance.tolist(), strict=True), strict=True
    ):
        assert answer(made.search(row, 10)) == expected


def test_directions_prune(few, tmp_path, monkeypatch):
    """Of 200 descriptors few are read; the test above would pass if all were."""
    made, read = filled(tmp_path / "g"), []
    rows = files.DescriptorFile.rows
    monkeypatch.setattr(
        files.DescriptorFile, "rows", lambda self, f, p: read.extend(p) or rows(self, f, p)
    )
    made.search(X[3], 5)
    assert 5 <= len(set(map(int, read))) < 60


def test_filters(few, tmp_path):
    made, everyone = filled(tmp_path / "g"), np.arange(200)
    timed, instants = everyone % 3 > 0, 1000 + everyone
    moment = datetime.fromtimestamp(1100, UTC)
    for words, allowed in (
        ({"cameras": [1, "3"]}, np.isin(everyone % 5, (1, 3))),
        ({"modalities": ["visible"]}, everyone % 2 == 1),
        ({"since": moment.isoformat()}, timed & (instants >= 1100)),
        ({"until": moment, "cameras": [0]}, timed & (instants <= 1100) & (everyone % 5 == 0)),
        ({"since": 1050, "until": 1060, "modalities": ["infrared"]},
         timed & (instants >= 1050) & (instants <= 1060) & (everyone % 2 == 0)),
        ({"cameras": ["nowhere"]}, everyone < 0),
    ):  # fmt: skip
        expected = exhaustive("part_euclidean", X[7], X, 12, allowed)
        assert answer(made.search(X[7], 12, **words)) == expected


def test_what_it_keeps_of_a_tracklet(tmp_path):
    frames = [str(tmp_path / f"<b>{i}.png") for i in range(3)]
    for i, frame in enumerate(frames):
        Image.new("RGB", (40, 200), (80 * i, 0, 0)).save(frame)
    made = Gallery.open(tmp_path / "g", Model(thresholds=THRESHOLDS))
    columns = {
        "camera": ["north", None],
        "identity": [7, -1],
        "time": ["2026-01-02T03:04:05+00:00", None],
    }
    made.add(X[:2], modality="visible", frames=[frames, ()], **columns)
    first, second = Gallery.open(tmp_path / "g").search(X[0], 2)
    assert first[:6] == (frames[0], "7", "north", "visible", 1767323045.0, tuple(frames))
    assert (first.distance, first.false_accepts) == (0, 0.01)
    assert second[:7] == ("", "", "", "visible", None, (), b"") and second.false_accepts in (0.1, 1)
    (tmp_path / "t.jpg").write_bytes(first.thumbnail)
    with Image.open(tmp_path / "t.jpg") as picture:
        assert picture.height == 112 and picture.getpixel((5, 5))[0] in range(70, 90)


def test_the_same_tracklet_is_there_once(tmp_path):
    made = filled(tmp_path / "g", X[:10])
    columns = {
        "modality": "visible",
        "camera": [1, 1],
        "time": [1001.0, 1001.0],
        "name": ["t1", "new"],
    }
    names = {k: v for k, v in columns.items() if k != "name"}
    assert made.known([(), ()], **names, name=["t1", "new"]) == [True, False]
    assert made.add(X[:2], **columns) == 1 and len(made) == 11
    assert made.add(X[:2], modality="visible") == 2  # nobody can tell those apart


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_says_how_far_distances_move(dtype, tmp_path):
    made = filled(tmp_path / "g", dtype=dtype)
    query = X[8] + 1
    there = {x.place: x.distance for x in made.search(query, 200)}
    given = np.linalg.norm(X.astype(np.float64) - query, axis=2).mean(1)
    moved = max(abs(there[i] - given[i]) for i in there)
    assert 0 < moved <= made.rounding * (1 + 1e-6)  # its own float32
    with pytest.raises(InputError, match="holds " + dtype):
        Gallery.open(tmp_path / "g", Model(), dtype="float32")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"embedding": X[:2, :, :5]}, r"descriptors are \[3, 5\], those of .* \[3, 32\]"),
        ({"embedding": np.full((2, PARTS, CHANNELS), np.nan)}, "descriptor 0 has NaN"),
        ({"embedding": np.full((2, PARTS, CHANNELS), 1e30)}, "huge"),
        ({"embedding": np.zeros((2, PARTS, CHANNELS), int)}, "have to be floating-point"),
        ({"embedding": np.zeros((0, PARTS, CHANNELS))}, "not empty"),
        ({"modality": "thermal"}, "modality 'thermal'"),
        ({"camera": [1]}, "camera has 1 entries for 2"),
        ({"time": ["noon", None]}, "time 'noon'"),
        ({"time": [float("inf"), None]}, "time inf"),
        ({"identity": ["a\x1b", None]}, "identity"),
        ({"name": ["x" * 5000, ""]}, "5000 letters"),
    ],
)
def test_what_cannot_be_added(changed, said, tmp_path):
    made = filled(tmp_path / "g", X[:5])
    before = (tmp_path / "g" / database.FILE).read_bytes()
    with pytest.raises(InputError, match=said):
        made.add(**{"embedding": X[:2], "modality": "visible"} | changed)
    assert (tmp_path / "g" / database.FILE).read_bytes() == before
    assert answer(made.search(X[3], 5)) == exhaustive("part_euclidean", X[3], X[:5], 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"k": 0}, "k = 0"),
        ({"embedding": X[0, :2]}, r"the query has shape \[2, 32\], the gallery's are \[3, 32\]"),
        ({"embedding": X[0] * np.nan}, "NaN"),
        ({"modalities": ["thermal"]}, "modality 'thermal'"),
        ({"since": "noon"}, "time 'noon'"),
    ],
)
def test_what_cannot_be_searched(words, said, tmp_path):
    made = filled(tmp_path / "g", X[:5])
    with pytest.raises(InputError, match=said):
        made.search(**{"embedding": X[0]} | words)


def test_descriptors_of_another_model_are_refused(tmp_path):
    filled(tmp_path / "g", X[:5])
    with pytest.raises(InputError, match=r"another model \(ours, step 7, not theirs, step 7\)"):
        Gallery.open(tmp_path / "g", Model(fingerprint="theirs"))
    with pytest.raises(InputError, match="ranks by 'part_euclidean', not 'dot'"):
        Gallery.open(tmp_path / "g", distance="dot")
    reader = Gallery.open(tmp_path / "g")
    assert len(reader.search(X[0], 9)) == 5
    with pytest.raises(InputError, match=r"open it with that model to add, Gallery.open\(folder"):
        reader.add(X[:1], modality="visible")
    # opened before the folder held anything
    first, second = (Gallery.open(tmp_path / "h", Model(fingerprint=x)) for x in "ab")
    first.add(X[:1], modality="visible")
    with pytest.raises(InputError, match="another model"):
        second.add(X[:1], modality="visible")


def test_folders_that_are_no_galleries(tmp_path):
    with pytest.raises(InputError, match="a new one needs a model, or a distance"):
        Gallery.open(tmp_path / "g")
    with pytest.raises(InputError, match="holds no tracklets yet"):
        Gallery.open(tmp_path / "g", Model()).search(X[0])
    assert not (tmp_path / "g").exists()
    (tmp_path / "file").write_text("text")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="no gallery and not empty"):
            Gallery.open(place, Model())
    with pytest.raises(InputError, match="distance 'far'"):
        Gallery.open(tmp_path / "g", distance="far")


def test_hostile_and_damaged_files_are_refused_in_a_line(few, tmp_path):
    made = filled(tmp_path / "g")
    file = tmp_path / "g" / database.FILE
    whole = {x: x.read_bytes() for x in (tmp_path / "g").iterdir()}

    def refused(said):
        with pytest.raises(InputError, match=said):
            Gallery.open(tmp_path / "g", Model()).search(X[3], 5)
        for path, content in whole.items():
            path.write_bytes(content)
        assert len(made.search(X[3], 5)) == 5

    for line in (
        "CREATE TRIGGER t AFTER INSERT ON tracklets BEGIN DELETE FROM facts; END",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE directions",
    ):
        with sqlite3.connect(file) as base:
            base.execute(line)
        base.close()
        refused("no gallery of this version")
    for line in (
        "UPDATE facts SET content = '[]'",
        """UPDATE facts SET content = replace(content, '"layout": 2', '"layout": 1')""",
        """UPDATE facts SET content = replace(content, 'part_euclidean', '__import__')""",
        """UPDATE facts SET content = replace(content, 'float32', 'object')""",
        "UPDATE directions SET basis = x'00'",
        "UPDATE details SET thumbnail = 'text'",
        "UPDATE details SET frames = '{'",
        "DELETE FROM details",
    ):
        with sqlite3.connect(file) as base:
            base.execute(line)
        base.close()
        refused(".")
    file.write_bytes(whole[file][: len(whole[file]) // 2])
    refused("cannot be read as a gallery|damaged|no gallery")
    for name in (files.DESCRIPTORS, files.BOUNDS):
        (tmp_path / "g" / name).write_bytes(whole[tmp_path / "g" / name][:-5000])
        refused(f"{name} has lost its end")
        (tmp_path / "g" / name).unlink()
        refused(f"{name}: cannot be opened")


def test_a_full_disk_loses_nothing(few, tmp_path, monkeypatch):
    made = filled(tmp_path / "g", X[:60])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for where, name in ((os, "pwrite"), (os, "posix_fallocate"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            with pytest.raises(InputError, match="No space left on device.*nothing was added"):
                made.add(X[60:90], modality="visible")
        assert len(made) == 60
        assert answer(made.search(X[3], 9)) == exhaustive("part_euclidean", X[3], X[:60], 9)
    assert made.add(X[60:], modality="visible") == 140
    assert answer(made.search(X[3], 9)) == exhaustive("part_euclidean", X[3], X, 9)


def test_the_second_writer_waits_or_is_refused(tmp_path, monkeypatch):
    made = filled(tmp_path / "g", X[:5])
    with lock(tmp_path / "g"):
        monkeypatch.setattr(gallery, "PATIENCE", 0.1)
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            made.add(X[:1], modality="visible")
        assert len(made.search(X[0], 9)) == 5
        monkeypatch.setattr(gallery, "PATIENCE", 60.0)
        other = threading.Thread(target=lambda: made.add(X[:1], modality="visible"))
        other.start()
        time.sleep(0.2)
        assert len(made) == 5
    other.join()
    assert len(made) == 6


def test_searching_beside_an_add(few, tmp_path):
    """A search sees what was whole when it began."""
    made, x = filled(tmp_path / "g", X[:100]), X.copy()
    end, seen = threading.Event(), []

    def search():
        while not end.is_set():
            seen.append(answer(made.search(x[3], 7)))

    reader = threading.Thread(target=search)
    reader.start()
    for start in range(100, 200, 5):
        made.add(x[start : start + 5], modality="visible")
    end.set()
    reader.join()
    whole = [exhaustive("part_euclidean", x[3], x[:n], 7) for n in range(100, 201, 5)]
    assert len(seen) > 2 and all(one in whole for one in seen)


ADDER = """
import sys
import numpy as np
from stores import Model, descriptors
from dinogrl_jax.retrieval.store import files, gallery, ranking
from dinogrl_jax.retrieval.store.gallery import Gallery
gallery.FEW = ranking.FEW = 40
files.COLUMNS = 1024
x, made = descriptors(2000), Gallery.open(sys.argv[1], Model())
print("ready", flush=True)
for start in range(len(made), 2000, 10):
    made.add(x[start : start + 10], modality="visible")
"""


def test_kill_9_loses_at_most_the_batch_at_hand(few, tmp_path):
    x, before = descriptors(2000), 0
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", ADDER, tmp_path / "g"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        made = Gallery.open(tmp_path / "g", Model())
        count = len(made)
        assert count % 10 == 0 and count >= before
        if count:
            expected = exhaustive("part_euclidean", x[3], x[:count], 9)
            assert answer(made.search(x[3], 9)) == expected
        before = count
    assert before  # the last ones have begun with what the first ones left

"""Runs of the same queries, read from files that may hold anything, and what differs in them."""

import json

import numpy as np
import pytest

from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.comparison import document
from dinogrl_jax.retrieval.comparison.figures import Estimate, compared, text_of
from dinogrl_jax.retrieval.comparison.queries import (
    FILE,
    Ranked,
    Row,
    Scored,
    read_queries,
    rows_of,
    scored_queries,
    write_queries,
)
from dinogrl_jax.retrieval.comparison.runs import Run, in_order_of, read_runs
from dinogrl_jax.retrieval.metrics import result_of_queries
from dinogrl_jax.retrieval.report.subjects import Subject, subject_of_tracklets

OPTIONS = scoring.ScoringOptions()
BOTH = ["visible_to_infrared", "infrared_to_visible"]


def columns(n: int = 80, noise: float = 1.0, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a features file: the noisier, the harder to recognise."""
    rng = np.random.default_rng(7)
    identity = np.arange(n) // 4 % 10
    who = rng.standard_normal((10, 6))[identity]
    drawn = np.random.default_rng(seed).standard_normal((n, 6))
    return {
        "embedding": (who + noise * drawn).astype(np.float32),
        "identity": identity,
        "camera": np.arange(n) % 3,
        "modality": np.array(["visible", "infrared"] * (n // 2)),
        "path": np.array([f"{i:03}.jpg" for i in range(n)]),
    }


def evaluated(**changed) -> Scored:
    c = columns() | changed
    role = np.full(len(c["identity"]), "both")
    labels = {name: c[name] for name in ("identity", "camera", "modality")} | {"role": role}
    evaluation = scoring.evaluation_of(c["embedding"], labels, OPTIONS)
    words = [c[name].astype(str).tolist() for name in ("identity", "camera", "modality", "path")]
    subject = Subject(*words, frames=lambda row: ())
    found = scored_queries(evaluation, subject, {"checkpoint": "best", "step": 7})
    return found._replace(settings={"seed": 0, "augment.erase": 0.5})


def saved(folder, found: Scored) -> str:
    folder.mkdir()
    write_queries(folder, found)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """Folders of two runs, the second of which is better and other than the first in a setting."""
    better = evaluated(embedding=columns(noise=0.6, seed=1)["embedding"])
    better = better._replace(settings={"seed": 0, "augment.erase": 0.0})
    return [saved(tmp_path / "base", evaluated()), saved(tmp_path / "new", better)]


def test_what_is_read_is_what_was_written(tmp_path):
    found = evaluated()
    write_queries(tmp_path, found)
    again = read_queries(tmp_path / FILE)
    assert (again.source, again.options) == (found.source, found.options)
    assert again.settings == found.settings
    for name in BOTH:
        (rows, result, digest), wanted = again.directions[name], found.directions[name]
        assert (rows, digest) == (wanted.rows, wanted.gallery_digest)
        for a, b in zip(result, wanted.result, strict=True):
            np.testing.assert_array_equal(a, b)


def test_figures_and_paired_differences(runs):
    base, new = read_runs(runs, OPTIONS)
    found = compared([base, new])
    assert list(found) == BOTH
    for name, one in found.items():
        results = [run.scored.directions[name].result for run in (base, new)]
        gain = one.differences["new"]["mAP"]
        assert gain.value == pytest.approx(results[1].mAP - results[0].mAP)
        assert one.figures["base"]["rank5"].value == pytest.approx(results[0].cmc[4])
        # The normal approximation of a paired difference, which 40 queries allow to a fifth.
        deviation = (results[1].ap - results[0].ap).std() / len(results[0].ap) ** 0.5
        assert gain.high - gain.low == pytest.approx(2 * 1.96 * deviation, rel=0.2)
    assert any(one.differences["new"]["mAP"].is_clear for one in found.values())
    text = text_of(found)
    assert "new − base" in text and "*" in text and "40 queries × 40" in text


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.01, 0.03, True), (-0.03, -0.01, True), (-0.01, 0.03, False), (0, 0.03, False)],
)
def test_a_difference_is_clear_where_its_interval_leaves_out_0(low, high, clear):
    assert Estimate(0.02, low, high).is_clear is clear


def test_a_run_has_no_difference_to_its_copy(tmp_path):
    places = [saved(tmp_path / name, evaluated()) for name in "ab"]
    for one in compared(read_runs(places, OPTIONS)).values():
        for x in one.differences["b"].values():
            assert x == (0, 0, 0) and not x.is_clear


def test_queries_in_another_order_are_the_same_queries(tmp_path):
    order = np.random.default_rng(3).permutation(80)
    shuffled = evaluated(**{name: x[order] for name, x in columns().items()})
    places = saved(tmp_path / "a", evaluated()), saved(tmp_path / "b", shuffled)
    for one in compared(read_runs(places, OPTIONS)).values():
        # float32 distances of other blocks decide near ties; no query moves far
        assert all(abs(x.value) < 1e-6 for x in one.differences["b"].values())


def test_features_are_scored_as_evaluation_does(tmp_path):
    np.savez(tmp_path / "theirs.npz", **columns())
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder/x.npz", **columns())
    places = [saved(tmp_path / "run", evaluated()), tmp_path / "theirs.npz", tmp_path / "folder"]
    found = compared(read_runs([str(x) for x in places], OPTIONS))
    assert list(found[BOTH[0]].figures) == ["run", "theirs", "folder"]
    for one in found.values():
        assert all(x.value == 0 for row in one.differences.values() for x in row.values())


def test_only_settings_that_differ_are_shown(runs):
    names = [name for name, _ in document.differing_settings(read_runs(runs, OPTIONS))]
    assert names == ["augment.erase"]
    base = Run("base", evaluated())
    of_features = evaluated()._replace(settings={}, source={"features": "f.npz"})
    assert not document.differing_settings([base, Run("f", of_features)])
    other = base.scored._replace(settings={"seed": 0, "model.width": 6})
    rows = document.differing_settings([base, Run("other", other)])
    assert rows == [
        ("augment.erase", [0.5, document.ABSENT]),
        ("model.width", [document.ABSENT, 6]),
    ]


def test_the_document_has_a_curve_for_each_run_and_runs_nothing(runs, tmp_path):
    nasty = "<script>alert(1)</script>"
    extra = evaluated()._replace(settings={"seed": nasty, "augment.erase": 0.5})
    places = [*runs, *(saved(tmp_path / f"third run, <b>{i}", extra) for i in range(6))]
    found = read_runs(places, OPTIONS)
    text = document.comparison_html(found, compared(found))
    assert "<script" not in text and "<b>" not in text and "&lt;script&gt;" in text
    for class_ in ("first", "second", "third", "eighth"):
        assert text.count(f'class="curve {class_}"') == 2 * 2  # a curve and its key, each direction
    assert "augment.erase" in text and "Differences to base" in text


def other_paths(found: Scored) -> Scored:
    path = columns()["path"]
    path[5] = "new.jpg"
    return evaluated(path=path)


def in_one_direction(found: Scored) -> Scored:
    return found._replace(directions={BOTH[0]: found.directions[BOTH[0]]})


def without_filter(found: Scored) -> Scored:
    return found._replace(options={**found.options, "camera_filter": False})


def other_gallery(found: Scored) -> Scored:
    one = found.directions[BOTH[0]]
    larger = one._replace(result=one.result._replace(gallery=41))
    return found._replace(directions={**found.directions, BOTH[0]: larger})


def other_people(found: Scored) -> Scored:
    """The same paths, and other names of the people."""
    return evaluated(identity=columns()["identity"] + 100)


def other_camera(found: Scored) -> Scored:
    camera = columns()["camera"]
    camera[6] = 9
    return evaluated(camera=camera)


def other_person_in_the_gallery(found: Scored) -> Scored:
    """One infrared tracklet is of a person whom nobody asks for; only its direction is kept."""
    identity = columns()["identity"]
    identity[7] = 99
    return in_one_direction(evaluated(identity=identity))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            other_paths,
            "queries only in the former: 1, only in the latter: 1, 'new.jpg' (identity 1,",
        ),
        (in_one_direction, "queries in one direction only"),
        (without_filter, "only one was scored with the camera filter"),
        (other_gallery, "visible to infrared, the galleries have 41 and 40 tracklets"),
        (
            other_people,
            "visible to infrared, the query '000.jpg' (identity 100, camera 0) is '000.jpg' "
            "(identity 0, camera 0) in the latter",
        ),
        (other_camera, "the query '006.jpg' (identity 1, camera 9) is '006.jpg' (identity 1, "),
    ],
)
def test_runs_of_other_queries_are_refused(change, said, tmp_path):
    places = [saved(tmp_path / "a", evaluated()), saved(tmp_path / "b", change(evaluated()))]
    with pytest.raises(InputError, match="b and a: .*") as caught:
        read_runs(places, OPTIONS)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_runs_of_other_galleries_are_refused(tmp_path):
    """Of the same queries, which a gallery's count does not tell."""
    places = [
        saved(tmp_path / "a", in_one_direction(evaluated())),
        saved(tmp_path / "b", other_person_in_the_gallery(evaluated())),
    ]
    with pytest.raises(InputError, match="b and a: visible to infrared, the galleries hold other"):
        read_runs(places, OPTIONS)


def without_paths(path, order=None, **changed) -> str:
    """A features file of rows that have no names."""
    arrays = {name: x for name, x in (columns() | changed).items() if name != "path"}
    np.savez(path, **{name: x if order is None else x[order] for name, x in arrays.items()})
    return str(path)


def test_rows_without_paths_are_the_same_where_all_labels_are(tmp_path):
    better = columns(noise=0.6, seed=1)["embedding"]
    same = without_paths(tmp_path / "a.npz"), without_paths(tmp_path / "b.npz", embedding=better)
    assert list(compared(read_runs(same, OPTIONS))) == BOTH
    shuffled = without_paths(tmp_path / "c.npz", np.random.default_rng(3).permutation(80))
    others = without_paths(tmp_path / "d.npz", identity=columns()["identity"] + 100)
    for other in (shuffled, others, saved(tmp_path / "run", evaluated())):
        with pytest.raises(InputError, match="visible to infrared, .*' .identity "):
            read_runs([same[0], other], OPTIONS)


def test_labels_are_compared_whoever_wrote_them(tmp_path):
    """A number is the same as text, with zeros before it and as floating point; -1 is unknown."""
    camera = columns()["camera"].astype(float)
    text = np.array([f"{x:04}" for x in columns()["identity"]])
    np.savez(tmp_path / "text.npz", **columns() | {"identity": text, "camera": camera})
    read_runs([saved(tmp_path / "run", evaluated()), str(tmp_path / "text.npz")], OPTIONS)
    unknown = Subject(["-1", ""], ["", "-1"], ["visible"] * 2, ["", "a"], lambda row: ())
    assert rows_of(unknown) == [Row("tracklet 0", "", ""), Row("a", "", "")]


@pytest.mark.parametrize("manifest", ["", "list.jsonl"], ids=["a folder", "a manifest"])
def test_a_tracklet_has_the_name_that_a_manifest_gives_it(manifest, tmp_path):
    (tmp_path / "list.jsonl").touch()
    frames = tuple(f"{tmp_path}/anna/{i}.jpg" for i in (1, 2))
    tracklets = [Tracklet(frames, "anna", 1, "visible", "both")]
    subject = subject_of_tracklets(tracklets, str(tmp_path / manifest))
    assert rows_of(subject) == [Row("anna/1.jpg", "anna", "1")]


def ranked(rows: list[Row]) -> Ranked:
    """Queries whose first match has the rank of their place in the list."""
    first = np.arange(1, len(rows) + 1)
    return Ranked(rows, result_of_queries(1 / first, 1 / first, first, len(rows)), "")


def test_one_long_name_does_not_widen_all():
    """NumPy's text arrays are as wide as their longest entry, and lose what ends in NUL."""
    rows = [Row(f"{i}", "", "") for i in range(50_000)] + [Row("x" * 10**6, "", "")]
    rows += [Row("x\0", "", ""), Row("x", "", "")]
    found = in_order_of(ranked(rows), ranked(rows[::-1]))
    assert found.rows == rows[::-1]
    np.testing.assert_array_equal(found.result.first, np.arange(len(rows), 0, -1))


def test_a_run_that_cannot_be_read_is_one_line(runs, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="^a{200} cannot be read: File name too long"):
        read_runs([runs[0], "a" * 300], OPTIONS)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(type(tmp_path), "iterdir", denied)
    with pytest.raises(InputError, match="theirs cannot be read: Permission denied$"):
        read_runs([runs[0], str(tmp_path / "theirs")], OPTIONS)


def test_places_that_are_no_two_runs_are_refused(runs, tmp_path):
    for name, files in (("empty", 0), ("many", 2)):
        (tmp_path / name).mkdir()
        for i in range(files):
            without_paths(tmp_path / name / f"{i}.npz")
    for places, said in {
        (runs[0],): "name 2 to 8 runs, not 1",
        (runs[0], f"{runs[0]}/../base"): "is named twice",
        (runs[0], f"{runs[0]}/{FILE}"): "is named twice",
        (runs[0], f"{tmp_path}/none"): "there is no such run",
        (runs[0], f"{tmp_path}/empty"): f"run dinogrl_jax evaluate --workdir {tmp_path}/empty",
        (runs[0], f"{tmp_path}/many"): "holds 2 features files: name one",
    }.items():
        with pytest.raises(InputError) as caught:
            read_runs(places, OPTIONS)
        assert said in str(caught.value)


def test_runs_of_the_same_name_are_called_by_their_paths(tmp_path):
    (tmp_path / "x").mkdir()
    places = [saved(tmp_path / "run", evaluated()), saved(tmp_path / "x/run", evaluated())]
    assert [run.name for run in read_runs(places, OPTIONS)] == places


BAD = {
    "text": "nonsense",
    "another key": {"source": 3},
    "no directions": {"directions": {}},
    "a direction of another name": {"directions": {"up": None}},
    "a rank beyond the gallery": ("first", 41),
    "a rank of many digits": ("first", 10**400),
    "a negative rank": ("first", -1),
    "a name of many letters": ("query", "x" * 5000),
    "an identity that is a number": ("identity", 3),
    "a digest that is none": {"gallery_sha256": 3},
    "a precision above 1": ("AP", 1.5),
    "no number": ("INP", float("nan")),
    "an infinite one": ("AP", float("inf")),
    "a text": ("AP", "1"),
    "a gallery of nobody": {"gallery": 0},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_files_of_anything_are_one_line(bad, tmp_path):
    write_queries(tmp_path, evaluated())
    content = json.loads((tmp_path / FILE).read_text())
    if isinstance(bad, tuple):
        content["directions"][BOTH[0]][bad[0]][3] = bad[1]
    elif bad == BAD["a direction of another name"]:
        content["directions"] = {"up": content["directions"][BOTH[0]]}
    elif isinstance(bad, dict) and {"gallery", "gallery_sha256"} & bad.keys():
        content["directions"][BOTH[0]] |= bad
    elif isinstance(bad, dict):
        content |= bad
    (tmp_path / FILE).write_text(bad if isinstance(bad, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_queries(tmp_path / FILE)
    assert str(caught.value).startswith(str(tmp_path / FILE)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["identity", "camera", "gallery_sha256"])
def test_a_file_without_identities_is_refused(column, tmp_path):
    write_queries(tmp_path, evaluated())
    content = json.loads((tmp_path / FILE).read_text())
    del content["directions"][BOTH[0]][column]
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"'{BOTH[0]}' has no '{column}'"):
        read_queries(tmp_path / FILE)


@pytest.mark.parametrize("column", ["first", "AP", "INP", "query", "identity", "camera"])
def test_columns_of_other_lengths_and_no_match_are_one_line(column, tmp_path):
    write_queries(tmp_path, evaluated())
    content = json.loads((tmp_path / FILE).read_text())
    content["directions"][BOTH[0]][column].pop()
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="no ranks and precisions|not an identity and a camera"):
        read_queries(tmp_path / FILE)

"""A report of hostile features: nothing from outside their folder, and no value that ends it."""

import numpy as np
import pytest
from PIL import Image

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.feature_file import Features
from dinogrl_jax.retrieval.report import frames, pairs, sections, subjects, write


def features(n=24, path="", embedding=None, **changed):
    ids = np.repeat(np.arange(n // 4), 4)
    rng = np.random.default_rng(0)
    who = rng.standard_normal((n // 4, 1, 4))[ids] + 0.3 * rng.standard_normal((n, 1, 4))
    made = {
        "embedding": (who if embedding is None else embedding(who)).astype(np.float32),
        "identity": ids,
        "names": ids.astype(str),
        "camera": np.tile([1, 2], n // 2),
        "modality": np.tile(["visible", "visible", "infrared", "infrared"], n // 4),
        "role": np.full(n, "both"),
        "path": np.full(n, path),
        "halves": None,
    }
    return Features(**made | changed)


def report(found: Features, folder, distance="part_euclidean") -> str:
    options = scoring.ScoringOptions(distance=distance)
    evaluation = scoring.evaluation_of(found.embedding, found.label_columns, options)
    figures = scoring.direction_figures(evaluation)
    results = {**figures, **scoring.evaluation_facts(evaluation), "features": "f"}
    subject = subjects.subject_of_features(found, str(folder))
    found = pairs.evaluation_pairs(evaluation)
    write.write_report(folder / "report.html", evaluation, found, subject, results)
    return (folder / "report.html").read_text()


@pytest.fixture
def bundle(tmp_path):
    """A folder of frames with links out of it, and within it."""
    (tmp_path / "bundle/frames").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    secret, own = tmp_path / "outside/1.png", tmp_path / "bundle/own.png"
    for path in (secret, own):
        Image.new("RGB", (8, 16), "red").save(path)
    (tmp_path / "bundle/frames/1.jpg").symlink_to(secret)
    (tmp_path / "bundle/frames/2.jpg").symlink_to(own)
    (tmp_path / "bundle/frames/._2.jpg").write_bytes(own.read_bytes())
    (tmp_path / "bundle/file.jpg").symlink_to(secret)
    (tmp_path / "bundle/folder").symlink_to(tmp_path / "outside")
    return tmp_path / "bundle"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        *(("frames", ["own.png"]), ("file.jpg", []), ("folder", []), ("folder/1.png", [])),
        *(("../outside", []), ("frames/../own.png", ["own.png"]), ("\ud800", []), ("a\0b", [])),
        *(("x" * 5000, []), ("own.png/x", []), ("frames/1.jpg", [])),
    ],
)
def test_frames_lie_below_their_folder_where_links_lead(bundle, path, names):
    shown = subjects.subject_of_features(features(path=path), str(bundle)).frames(0)
    assert [frame.rsplit("/", 1)[1] for frame in shown] == names


def test_a_report_shows_no_picture_through_a_link(bundle):
    assert "data:image" not in report(features(path="file.jpg"), bundle)
    assert "data:image" in report(features(path="frames"), bundle)


VALUES = [
    *(("dot", lambda x: np.full_like(x, 1e18)), ("dot", lambda x: 1e18 * x)),
    *(("part_euclidean", lambda x: 1e18 * x), ("cosine", lambda x: np.full_like(x, 1e-30))),
]


@pytest.mark.parametrize(("distance", "values"), VALUES, ids=range(len(VALUES)))
def test_values_of_any_size_give_a_report(distance, values, tmp_path):
    text = report(features(embedding=values), tmp_path, distance)
    assert "Ranked lists" in text and ">nan" not in text and '"nan' not in text


def test_names_of_any_kind_give_a_report(tmp_path):
    nasty = np.array(["a\ud800", "\x1b[2J\n", "<i>", f"a{'9' * 190}", "\u202e", "\ud800\udc00"])
    names = np.repeat(nasty, 4)
    text = report(features(path="\x1b<i>\ud800", names=names, camera=np.tile(nasty, 4)), tmp_path)
    assert "Ranked lists" in text and "<i>" not in text and "&lt;i&gt;" in text


@pytest.mark.parametrize(("cameras", "shown"), [(3, True), (pairs.MOST_CAMERAS + 1, False)])
def test_many_cameras_are_no_matrix(cameras, shown):
    rows = np.arange(2 * cameras)
    distance = np.random.default_rng(0).random((len(rows), len(rows)))
    same = np.eye(len(rows), dtype=bool)
    found = pairs.Pairs(distance, same, same | True, rows, rows, len(rows))
    matrix = pairs.camera_matrix(found, [f"D{row % cameras}" for row in rows])
    text = sections.cameras_section({"visible_to_infrared": matrix})
    assert ("There are more than" not in text) == shown == ("D2" in text)


def test_a_wide_picture_becomes_small(tmp_path):
    Image.new("RGB", (70_000, 2)).save(tmp_path / "1.png")
    element = frames.frame_element(str(tmp_path / "1.png"))
    assert element is not None and len(element) < 20_000
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert frames.frame_element(str(tmp_path / "1.png")) is None


@pytest.mark.parametrize("low", [-8e36, -1.0, 0.0, 1e-300, 7e12])
def test_bins_are_apart(low):
    for high in (low, np.nextafter(low, np.inf)):
        edges = sections.bin_edges(low, high)
        assert np.isfinite(edges).all() and (np.diff(edges) > 0).all()
        assert edges[0] <= low and high <= edges[-1]


def test_descriptors_that_are_too_large_are_one_line(tmp_path):
    with pytest.raises(InputError, match="NaN, infinite or huge values"):
        report(features(embedding=lambda x: np.full_like(x, 1e30)), tmp_path)

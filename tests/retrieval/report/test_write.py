"""The report as a file: everything is in it, nothing else is needed, nothing is injected."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.feature_file import Features
from dinogrl_jax.retrieval.report import subjects, write
from dinogrl_jax.retrieval.report.pairs import evaluation_pairs

NASTY = "<img src=x onerror=alert(1)>"
SECTIONS = ["Figures", "Ranks", "Same or different person", "Cameras", "Ranked lists"]


class Seen(HTMLParser):
    """The elements of a page, with their attributes, and the texts of headings."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.headings, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def all(self, tag, class_=""):
        return [a for t, a in self.elements if t == tag and class_ in (a.get("class") or "")]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """frames/p<i>.png inside a folder, and a frame beside it that no report may show."""
    folder = tmp_path_factory.mktemp("frames") / "inside"
    (folder / "many").mkdir(parents=True)
    for name in [f"p{i}.png" for i in range(40)] + ["many/F9.png", "many/F10.png", "../out.png"]:
        Image.new("RGB", (40, 160), (int(len(name)) * 9, 80, 20)).save(folder / name)
    return folder


def features(n=40, parts=3, **changed):
    rng = np.random.default_rng(0)
    identity = np.arange(n) // 4 % 10
    names = np.array([f"{NASTY}{i}" for i in identity])
    who = rng.standard_normal((10, parts, 8))
    columns = {
        "embedding": (who[identity] + rng.standard_normal((n, parts, 8))).astype(np.float32),
        "identity": identity,
        "names": names,
        "camera": np.array([f"{NASTY}D{i % 3}" for i in range(n)]),
        "modality": np.array(["visible", "infrared"] * (n // 2)),
        "role": np.full(n, "both"),
        "path": np.array([f"p{i}.png" for i in range(n)]),
        "halves": None,
    }
    return Features(**columns | changed)


def html(found, subject, results):
    return write.report_html(found, evaluation_pairs(found), subject, results)


def made(found_features, folder, method=scoring.ScoringOptions()):  # noqa: B008
    f = found_features
    found = scoring.evaluation_of(f.embedding, f.label_columns, method)
    results = {
        **scoring.direction_figures(found),
        **scoring.evaluation_facts(found),
        "features": NASTY,
    }
    return (
        html(found, subjects.subject_of_features(f, str(folder)), results),
        found,
        results,
    )


@pytest.fixture(scope="module")
def report(frames):
    return made(features(), frames)


def test_everything_is_there(report):
    text, found, results = report
    seen = Seen(text)
    assert not seen.open
    assert seen.headings == [*SECTIONS, "Descriptors"]
    assert len(seen.all("path", "curve")) == 3  # CMC of two directions, ROC
    assert len(seen.all("path", "area")) == 4  # AP of two directions, same and different
    points = seen.all("circle", "point"), seen.all("path", "point")
    assert [len(x) for x in points] == [20, 20]
    assert len(seen.all("rect", "bar")) == 12 * 3  # of each shown query and part
    for name in found.results:
        assert f"{100 * results[name]['mAP']:.2f}" in text
        low, high = results["intervals"][name]["mAP"]
        assert f"{100 * low:.1f}–{100 * high:.1f}" in text
    assert "too few pairs" in text  # one in ten thousand


def test_the_top_says_what_was_scored(tmp_path):
    """Rank-1 and mAP first, then where it is from, then the changed settings, folded."""
    f = features()
    found = scoring.evaluation_of(f.embedding, f.label_columns, scoring.ScoringOptions())
    results = {
        **scoring.direction_figures(found),
        **scoring.evaluation_facts(found),
        "checkpoint": "best",
        "step": 7,
        "model": f"runs/{NASTY}",
        "data": {"name": "vcm", "root": "/data/here"},
        "date": "2031-01-02T03:04:05+00:00",
        "versions": {"jax": "9.9"},
        "settings": ["seed: 0 → 3", f"data.root:  → {NASTY}"],
    }
    text = html(found, subjects.subject_of_features(f, str(tmp_path)), results)
    top = text[: text.index("<section")]
    for row in (results[name] for name in found.results):
        assert f"<b>{100 * row['rank1']:.1f}</b><span>rank-1" in top
        assert f"<b>{100 * row['mAP']:.1f}</b><span>mAP" in top
    for said in ("vcm /data/here", "2031-01-02", "jax 9.9", "2 settings", "<li>seed: 0 → 3</li>"):
        assert said in top
    assert len(Seen(text).all("details")) == 1 and NASTY not in text
    of_features, _, _ = made(f, tmp_path)
    assert not Seen(of_features).all("details") and "<dt>features</dt>" in of_features


def test_ranked_lists_are_green_and_red(report):
    text, found, _ = report
    seen = Seen(text)
    assert len(seen.all("div", "entry query")) == 2 * 6
    good, bad = seen.all("div", "entry good"), seen.all("div", "entry bad")
    assert len(good) + len(bad) == 12 * 10
    assert text.count("✓ ") == len(good) and text.count("✗ ") == len(bad)
    assert 0 < len(good) < len(bad)


def test_nothing_is_injected_and_nothing_is_loaded(report):
    text, _, _ = report
    seen = Seen(text)
    assert not [t for t, _ in seen.elements if t in ("script", "link", "iframe", "object", "a")]
    assert not [k for _, a in seen.elements for k in a if k.startswith("on")]
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in seen.all("img"))
    assert NASTY not in text and "&lt;img src=x" in text
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not re.search(r"url\(", text)


def test_frames_are_small_pictures(report):
    text, _, _ = report
    images = Seen(text).all("img")
    assert len(images) == 12 * 11  # queries have one frame here
    data = base64.b64decode(images[0]["src"].split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG" and picture.size == (28, 112)


def test_frames_of_folders_and_of_nowhere(frames):
    paths = ["many", "p1.png", "../out.png", str(frames.parent / "out.png"), "none", "", "p1.png/x"]
    subject = subjects.subject_of_features(features(path=np.array(paths + [""] * 33)), str(frames))
    shown = [[f.rsplit("/", 1)[1] for f in subject.frames(row)] for row in range(7)]
    assert shown == [["F9.png", "F10.png"], ["p1.png"], [], [], [], [], []]


def test_a_frame_that_is_no_picture_is_left_out(frames):
    (frames / "text.png").write_text("text")
    text, _, _ = made(features(path=np.full(40, "text.png")), frames)
    assert "no frame" in text and not Seen(text).all("img")


@pytest.mark.parametrize(
    "method",
    [
        scoring.ScoringOptions(rerank="k_reciprocal"),
        scoring.ScoringOptions(distance="dot", camera_filter=False),
    ],
)
def test_other_methods(method, tmp_path):
    text, _, _ = made(features(parts=1), tmp_path, method)
    seen = Seen(text)
    assert seen.headings == [*SECTIONS, "Descriptors"]
    assert not seen.all("rect", "bar")  # one part contributes all
    assert ("this one only" in text) == (method.rerank != "none")
    assert "nan" not in text.lower()


def test_the_smallest_evaluation(tmp_path):
    """One query, one gallery tracklet: sections say what they cannot show."""
    cameras, roles = np.array(["a", "b"]), np.array(["query", "gallery"])
    two = features(n=2, identity=np.zeros(2, int), camera=cameras, role=roles)
    text, found, _ = made(two, tmp_path)
    assert list(found.results) == ["visible_to_infrared"]
    assert Seen(text).headings == SECTIONS
    assert "no pairs of both kinds" in text


def test_skipped_queries_are_listed(tmp_path):
    f = features()
    identity = f.identity.copy()
    identity[[0, 2]] = 100, 101
    text, _, _ = made(f._replace(identity=identity), tmp_path)
    assert "visible to infrared: 2 queries without a match are left out: tracklets 0, 2" in text


def test_pictures_and_names_of_parts(frames):
    f = features()
    asked = []

    def pictures(rows):
        asked.extend(rows)
        return [np.full((8, 6, 3), 255, np.uint8)] * len(rows)

    found = scoring.evaluation_of(f.embedding, f.label_columns, scoring.ScoringOptions())
    results = {
        **scoring.direction_figures(found),
        **scoring.evaluation_facts(found),
        "features": "f",
    }
    subject = subjects.subject_of_features(f, str(frames))
    part_names = ["gait, 1", "gait, 2", "appearance, 1"]
    shown = subjects.Shown("frames, foreground", pictures, ("frames", NASTY), ("1", "2", "3"))
    subject = subject._replace(pictures=[shown], part_names=part_names)
    text = html(found, subject, results)
    assert asked == sorted(set(asked))
    assert len(Seen(text).all("img")) == 12 * 11 + 2 * 12
    assert text.count("nearest match: frames, foreground") == 12
    labels = "<span>1</span><span>2</span><span>3</span>", "<span>frames</span><span>&lt;img"
    assert all(text.count(label) == 2 * 12 for label in labels) and NASTY not in text
    assert "appearance, 1: " in text


def test_a_place_that_cannot_be_written(tmp_path):
    f = features()
    found = scoring.evaluation_of(f.embedding, f.label_columns, scoring.ScoringOptions())
    results = {
        **scoring.direction_figures(found),
        **scoring.evaluation_facts(found),
        "features": "f",
    }
    subject, pairs = subjects.subject_of_features(f, str(tmp_path)), evaluation_pairs(found)
    with pytest.raises(InputError, match="report.html: cannot be written"):
        write.write_report(tmp_path / "none" / "report.html", found, pairs, subject, results)
    write.write_report(tmp_path / "report.html", found, pairs, subject, results)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]  # no draft

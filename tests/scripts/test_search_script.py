"""scripts/search.py: a gallery of a manifest, extended, searched, shown."""

import json
import re

import jax
import numpy as np
import pytest
import small
from PIL import Image

import dinogrl_jax
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training import checkpoint

HOSTILE = "<script>alert(1)<>&\"'"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("searched") / "run", small.get_config()
    metadata = checkpoint.Metadata(
        config, list(range(small.IDENTITIES)), list(small.FACTS.cameras), 7
    )
    (folder / "checkpoints").mkdir(parents=True)
    variables = jax.device_get(initial_variables(small.model(config), config))
    checkpoint.write_checkpoint(folder / "checkpoints", variables, metadata)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Six tracklets of two frames; a name and a folder are hostile."""
    folder = tmp_path_factory.mktemp("frames") / HOSTILE.replace("/", "")
    folder.mkdir()
    rng, lines, times = np.random.default_rng(0), [], {2: 60, 3: "1970-01-01T01:02:00+01:00"}
    for i in range(6):
        (folder / str(i)).mkdir()
        frames = [f"{i}/{j}.png" for j in range(2)]
        for frame in frames:
            Image.fromarray(rng.integers(0, 256, (60, 30, 3), np.uint8)).save(folder / frame)
        modality = ("visible", "infrared")[i % 2]
        identity = HOSTILE if i == 3 else f"person {i}"
        line = {"frames": frames, "identity": identity, "camera": i, "modality": modality}
        lines.append(line | ({"time": times[i]} if i in times else {}))
    path = folder / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_index_extend_and_query(run, manifest, done, tmp_path):  # noqa: F811
    index = ("--index", "g", "--checkpoint", run)
    first = manifest.with_name("first.jsonl")
    first.write_text("\n".join(manifest.read_text().splitlines()[:4]))
    for listed, said in ((first, "4 tracklets added, 4 in"), (manifest, "2 tracklets added, 6 in")):
        status, output, errors = done("search", *index, "--tracklets", listed, "--batch", 1)
        assert status == 0 and said in output, errors
    query = ("--query", manifest.parent / "3", "--modality", "infrared", "--k", 4)
    status, output, errors = done("search", *index, *query, "--out", "found.html")
    assert status == 0, errors
    lines = output.splitlines()
    assert lines[0].split() == (
        "rank distance false accepts identity camera modality time tracklet".split()
    )
    assert len(lines) == 6 and lines[1].split()[0] == "1" and "3/0.png" in lines[1]

    model = dinogrl_jax.load(run, batch=1)
    (descriptor,) = model.embed([manifest.parent / "3"], "infrared")
    found = dinogrl_jax.Gallery.open("g", model).search(descriptor, 4)
    assert [x.name for x in found] == [line.split()[-1] for line in lines[1:5]]
    assert [f"{x.distance:.4g}" for x in found] == [line.split()[1] for line in lines[1:5]]
    assert found[0].identity == HOSTILE and len(found[0].frames) == 2

    page = (tmp_path / "found.html").read_text()
    assert HOSTILE not in page and "<script" not in page
    assert page.count("data:image/jpeg") == 2 + 4 and "default-src &#x27;none&#x27;" in page
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg)", page)


def test_filters_reach_the_search(run, manifest, done):  # noqa: F811
    index = ("--index", "g", "--checkpoint", run)
    assert done("search", *index, "--tracklets", manifest, "--batch", 1)[0] == 0
    query = ("--query", manifest.parent / "3" / "0.png", "--modality", "infrared")
    words = ("--cameras", "1, 3,5", "--modalities", "infrared")
    _, output, _ = done("search", *index, *query, *words)
    assert len(output.splitlines()) == 1 + 3 + 1
    for bounds, count in (
        (("--since", "2026-01-01"), 0),  # other times are unknown
        (("--since", "1970-01-01T00:01:00Z"), 2),
        (("--since", "1970-01-01T00:01:01Z"), 1),
        (("--until", "1970-01-01T00:01:30Z"), 1),
    ):
        _, output, _ = done("search", *index, *query, *bounds)
        assert len(output.splitlines()) == 2 + count, bounds


def test_features_of_other_code(done, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "f.npz",
        embedding=rng.standard_normal((5, 8)).astype(np.float32),
        identity=np.arange(5),
        modality=np.array(["visible"] * 5),
        path=np.array([f"{i}.png" for i in range(5)]),
    )
    words = ("--index", "g", "--features", "f.npz", "--distance", "cosine")
    for added in (5, 0):
        status, output, errors = done("search", *words)
        assert status == 0 and f"{added} tracklets added, 5 in all" in output, errors
    gallery = dinogrl_jax.Gallery.open("g")
    embedding = np.load("f.npz")["embedding"]
    found = gallery.search(embedding[2], 5)
    assert found[0].name == "2.png" and found[0].distance == pytest.approx(0, abs=1e-7)
    assert gallery.source.distance == "cosine"


def test_features_say_which_model_made_them(run, manifest, done, tmp_path):  # noqa: F811
    """A gallery takes its model's, and refuses another's."""
    words = ("--checkpoint", run, "--tracklets", manifest)
    assert done("extract", *words, "--out", "f.npz", "--batch", 1)[0] == 0
    with np.load("f.npz") as arrays:
        arrays = dict(arrays)
    assert str(arrays["title"]) == dinogrl_jax.load(run).source.title
    assert done("search", "--index", "g", *words, "--batch", 1)[0] == 0
    status, output, errors = done("search", "--index", "g", "--features", "f.npz")
    assert status == 0 and "in all" in output, errors
    assert dinogrl_jax.Gallery.open("g").source.fingerprint == str(arrays["model"])
    np.savez(tmp_path / "other.npz", **arrays | {"model": np.array("1"), "title": np.array("X, 2")})
    others = "--features", "other.npz"
    status, _, errors = done("search", "--index", "g", *others)
    assert status == 2 and "g holds descriptors of another model" in errors and "X, 2" in errors
    status, _, errors = done("search", "--index", "h", *others, "--checkpoint", run)
    assert status == 2 and "holds descriptors of another model (X, 2) than --check" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--index"),
        (("--index", "g"), "one of the arguments --tracklets --features --query is required"),
        (("--index", "g", "--tracklets", "x"), "need a model, --checkpoint DIR"),
        (("--index", "g", "--checkpoint", "x", "--query", "y"), "--query needs its --modality"),
        (("--index", "g", "--features", "x"), "x: cannot be read"),
        (("--index", "g", "--features", "x", "--distance", "far"), "invalid choice"),
        (("--index", "g", "--tracklets", "x", "--query", "y"), "not allowed with argument"),
    ],
)
def test_refusals(words, said, refused):  # noqa: F811
    assert said in refused("search", *words)


def test_a_query_without_frames_or_a_gallery(run, done, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    words = ("search", "--index", "g", "--checkpoint", run, "--modality", "visible", "--query")
    for query, said in (
        ("empty", "holds no images"),
        ("nowhere.png", "nowhere.png does not exist"),
    ):
        status, output, errors = done(*words, query)
        assert (status, output) == (2, "") and said in errors and not (tmp_path / "g").exists()
    Image.new("RGB", (20, 40)).save(tmp_path / "one.png")
    assert "holds no tracklets yet" in done(*words, "one.png")[2]
    assert not (tmp_path / "search.html").exists()

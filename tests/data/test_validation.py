"""Each kind of damage, planted in a copy of a synthetic data set, is found where it was planted."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import script
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.config import shared
from dinogrl_jax.data.checks.validation import Report, validate
from dinogrl_jax.data.walkers import synthetic

PEOPLE = {"train_identities": 3, "test_identities": 2, "tracklets_per_identity": 2}


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "people"
    size = {"frames_per_tracklet": 12, "height": 32, "width": 16}
    synthetic.generate(root, seed=0, workers=0, **PEOPLE, **size)
    return root


@pytest.fixture
def copy(people, tmp_path) -> Path:
    return Path(shutil.copytree(people, tmp_path / "people"))


def report(root: Path, **settings) -> Report:
    config = ConfigDict(shared()["data"])
    config.update(root=str(root), identities_per_batch=2, **settings)
    return validate(config, workers=0)


def edit(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """Damage that changes the lines of an info file."""

    def damage(root: Path) -> None:
        path = root / "info" / name
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return damage


def field(number: int, value: str) -> Callable[[list[str]], list[str]]:
    """Change a field of the second line, from 0 on."""

    def change(lines: list[str]) -> list[str]:
        words = lines[1].split()
        words[number] = value
        return [lines[0], " ".join(words), *lines[2:]]

    return change


def frame(number: int, damage: Callable[[Path], object]) -> Callable[[Path], None]:
    """Damage to a visible training frame."""
    return lambda root: damage(sorted((root / "Train").glob("*/rgb/*/*.jpg"))[number])


def saved(picture: Image.Image, path: Path, kind: str = "jpeg") -> None:
    picture.save(path, kind)


ROWS, NAMES, QUERIES = "track_train_info.txt", "train_name.txt", "query_IDX.txt"
GREY, CMYK = Image.new("L", (16, 32)), Image.new("CMYK", (16, 32))
DEEP = Image.fromarray(np.full((32, 16), 40_000, np.uint16))
ANOTHER = "track_test_info.txt"

DAMAGES = {  # name: (damage, kind, words, whether training would stop)
    "no info file": (lambda r: (r / "info" / QUERIES).unlink(), "data set", QUERIES, True),
    "no frames' folders": (
        lambda r: [shutil.rmtree(r / s) for s in ("Train", "Test")],
        "data set",
        "neither Train/",
        True,
    ),
    "4 numbers": (edit(ROWS, lambda x: [x[0], x[1][:-3], *x[2:]]), "row", f"{ROWS}:2: 4 n", True),
    "words": (edit(ROWS, field(4, "D3")), "row", f"{ROWS}:2: 'D3' is not", True),
    "past the end": (edit(ROWS, field(2, "99999")), "row", f"{ROWS}:2: frames", True),
    "no modality": (edit(ROWS, field(0, "3")), "row", f"{ROWS}:2: modality 3", True),
    "no camera": (edit(ROWS, field(4, "0")), "row", f"{ROWS}:2: camera 0", True),
    "another identity": (edit(ROWS, field(3, "2")), "frames of others", f"{ROWS}:2: ", True),
    "nonsense name": (edit(NAMES, lambda x: ["x.jpg", *x[1:]]), "name", f"{NAMES}:1: ", True),
    "no queries": (edit(QUERIES, lambda x: []), "empty", f"{QUERIES} is empty", True),
    "visible query": (edit(QUERIES, lambda x: [*x, "3"]), "query", f"{QUERIES}:2: row 3", True),
    "query twice": (edit(QUERIES, lambda x: [*x, "1"]), "query", f"{QUERIES}:2: row 1 is l", True),
    "query past the end": (edit(QUERIES, lambda x: [*x, "99"]), "query", "row 99", True),
    "no folder": (lambda r: shutil.rmtree(r / "Train/0002"), "folder", "no folder 0002", True),
    "one modality": (
        edit(
            ROWS,
            lambda x: [
                row
                for row in x
                if not row.endswith(tuple("0123456789"))
                or row.split()[0] + row.split()[3] != "10001"
            ],
        ),  # fmt: skip
        "one modality",
        "identity 1 has no infrared",
        True,
    ),
    "one identity": (edit(ROWS, lambda x: x[:4]), "few identities", "1 training identities", True),
    "both sets": (
        lambda r: (
            [shutil.copytree(r / "Train/0001", r / "Test/0001")]
            + [shutil.copy(r / "info" / NAMES, r / "info/test_name.txt")]
            + [shutil.copy(r / "info" / ROWS, r / "info" / ANOTHER)]
            + [(r / "info" / QUERIES).write_text("1 2")]
        ),
        "identity in both sets",
        "identity 1 is in",
        True,
    ),
    "missing frame": (frame(0, Path.unlink), "missing frame", "does not exist", True),
    "text frame": (frame(1, lambda p: p.write_text("x")), "no image", "is not an image", True),
    "empty frame": (frame(2, lambda p: p.write_bytes(b"")), "no image", "is not an image", True),
    "truncated frame": (
        frame(3, lambda p: p.write_bytes(p.read_bytes()[:-200])),
        "damaged image",
        "is a damaged image",
        True,
    ),
    "link to itself": (
        frame(4, lambda p: (p.unlink(), p.symlink_to(p.name))),
        "damaged image",
        "is a damaged image",
        True,
    ),
    "16 bits": (frame(5, lambda p: saved(DEEP, p, "png")), "deep image", "more than 8 bits", True),
    "grey": (frame(6, lambda p: saved(GREY, p)), "grey image", "is grey though", False),
    "CMYK": (frame(7, lambda p: saved(CMYK, p)), "colour mode", "is in CMYK", False),
    "short": (edit(ROWS, field(2, "20")), "short tracklet", f"{ROWS}:2: left out", False),
    "row twice": (
        edit(ROWS, lambda x: [*x, x[0]]),
        "repeated frame",
        "occur more than once",
        False,
    ),
}


def test_nothing_is_wrong_with_the_whole(people):
    found = report(people)
    assert found.totals["training tracklets"] == 12 and found.totals["listed tracklets"] == 20
    assert {problem.kind for problem in found.problems} == {"size"}
    assert not found.fatal


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(copy, name):
    damage, kind, words, fatal = DAMAGES[name]
    damage(copy)
    found = [problem for problem in report(copy).problems if problem.kind == kind]
    assert any(words in str(problem) and problem.fatal == fatal for problem in found), found


def test_a_query_that_only_its_own_camera_could_match(copy):
    edit(ANOTHER, lambda x: [" ".join([*row.split()[:4], "3"]) for row in x])(copy)
    found = report(copy).problems
    assert sum(problem.kind == "query without match" for problem in found) == 8


def test_all_damage_at_once_through_the_script(copy, tmp_path):
    planted = ["4 numbers", "nonsense name", "query twice", "missing frame", "grey"]
    for name in planted:
        DAMAGES[name][0](copy)
    for path in (copy / "Test").rglob("*.jpg"):
        os.truncate(path, 100)
    out = tmp_path / "report.json"
    done = script("validate.py", "--root", copy, "--json", out, "--workers", 2)
    assert done.status == 1, done.errors
    made = json.loads(out.read_text())
    kinds = {problem["kind"] for problem in made["problems"]}
    assert kinds >= {DAMAGES[name][1] for name in planted} | {"damaged image"}
    assert not made["usable"] and made["expected"]["listed tracklets"] == 21863
    (row,) = (problem for problem in made["problems"] if problem["kind"] == "row")
    assert row["line"] == 2 and row["file"].endswith(ROWS)
    assert len(done.output.splitlines()) < 100 and "    and " in done.output  # a summary
    assert "would stop" in done.output

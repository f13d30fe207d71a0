"""Documents: what they name is there, and what they say of versions and papers is so."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT

import dinogrl_jax
from dinogrl_jax import methods

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
INDEX = (ROOT / "docs" / "index.md").read_text()
CITATION = (ROOT / "CITATION.cff").read_text()
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Pages that say how something is made which is not there.
WALKS = ("new_data_set.md", "new_method.md")


def identifier(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The places that a repository's browser makes of headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        letters = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(letters.strip().replace(" ", "-"))
    return found


def targets(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to files: as they are written, the file, the place in it."""
    for link in LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", link):
            name, _, place = link.partition("#")
            yield link, (page.parent / name).resolve() if name else page, place


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_links_lead_somewhere(page):
    for link, file, place in targets(page):
        assert file.exists(), link
        assert not place or place in anchors(file), link


@pytest.mark.parametrize("page", [x for x in PAGES if x.name not in WALKS], ids=identifier)
def test_files_that_a_page_names_are_there(page):
    folders = "tests|benchmarks|scripts|dinogrl_jax|docs"
    for name in re.findall(rf"`((?:{folders})/[\w/]+\.(?:py|md|png))`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_every_page_stands_in_the_navigation_once():
    listed = re.findall(r"^.+ <([\w/]+)>$", INDEX, re.MULTILINE)
    pages = [x.relative_to(ROOT) for x in PAGES if x.parent != ROOT]
    there = {x.relative_to("docs").with_suffix("").as_posix() for x in pages}
    assert sorted(listed) == sorted(there - {"index"})


def test_the_citation_is_of_this_version_and_of_every_paper():
    assert f"\nversion: {dinogrl_jax.__version__}\n" in CITATION
    for name in methods.METHODS:
        (paper,) = re.findall(r"arXiv (\d+\.\d+)", methods.named(name).TITLE)
        assert CITATION.count(f"arXiv:{paper}") == 1


def test_the_changes_reach_this_version():
    headings = re.findall(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == dinogrl_jax.__version__


def test_groups_are_scored_as_the_page_says(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "responsible_use.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    rng, rows = np.random.default_rng(0), np.arange(48)
    people = rows // 4
    names = {"identity": people, "camera": rows % 4, "distance": "euclidean"}
    # The second half of the people differ less from each other: its threshold is nearer.
    apart = np.where(people < 6, 3.0, 0.3)[:, None, None]
    centres = rng.normal(size=(12, 1, 8))[people] * apart
    made = np.float32(centres + 0.3 * rng.normal(size=(48, 1, 8)))
    modality = np.where(rows % 2, "visible", "infrared")
    np.savez(tmp_path / "features.npz", embedding=made, modality=modality, **names)
    np.savetxt(tmp_path / "groups.txt", np.where(people < 6, "apart", "alike"), fmt="%s")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(code, "groups.py", "exec"), found)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["alike", "apart"]
    first, second = (float(re.findall(r"'distance': ([\d.]+)", line)[0]) for line in lines)
    assert first < second

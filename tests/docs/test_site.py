"""The site's own code: what it makes of the package, and what it says of links."""

import importlib.util
import re
from types import ModuleType

import pytest
from commands import ROOT

from dinogrl_jax import config, methods
from dinogrl_jax.interface.settings import leaves


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    return module("generated")


@pytest.fixture(scope="module")
def links() -> ModuleType:
    return module("links")


def rows(text: str) -> list[str]:
    """The first column of tables of settings."""
    return re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)


def test_every_setting_has_a_row(generated):
    shared, *others = "\n".join(["", *generated.settings()]).split("\n## ")[1:]
    assert rows(shared) == [name for name, _ in leaves(config.SETTINGS)]
    assert len(others) == len(methods.METHODS)
    for name, text in zip(methods.METHODS, others, strict=True):
        own = {key for key, _ in leaves(methods.declaration(name))}
        assert own - set(rows(shared)) <= set(rows(text)) <= own
        assert len(rows(text)) == len(set(rows(text)))
        assert f"| `method` | `'{name}'` |" in text


def test_a_cell_is_text(generated):
    assert generated.cell("a|b *c* <d> [e] f_g") == r"a\|b \*c\* \<d> \[e] f\_g"


def test_a_diagram_is_a_table_of_rooms(generated):
    chart = 'flowchart BT\n  a["<b>a</b><br>the ground"]\n  b["upper"]\n  a --> b\n'
    lines = generated.rooms(chart).splitlines()
    assert lines[2:] == ["| `b` | upper | `a` |", "| `a` | the ground |  |"]


def test_fields_have_their_comments(generated):
    text = "\n".join(generated.fields(generated.Found))
    assert rows(text) == list(generated.Found._fields)
    assert '| `modality` | `str` | "visible" or "infrared" |' in text


def test_links_are_called_as_in_the_navigation(generated):
    text = "see [scaling.md](scaling.md#gpus), [docs/data.md](data.md), [a word](data.md)"
    made = generated.page_text("start", text)
    assert made == "see [Many chips](scaling.md#gpus), [Data](data.md), [a word](data.md)"


def test_a_page_stands_for_a_file_at_the_top(generated):
    text = generated.page_text("contributing", "")
    assert text.startswith("# Contributing\n")
    assert "](docs/" not in text and "](changes.md)" in text and "](architecture.md)" in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="#here">x</a><p id="here">', None),
        ('<a href="other.html#there">x</a>', None),
        ('<a href="https://example.org">x</a>', None),
        ('<img src="data:image/png;base64,AA">', None),
        ('<a href="#gone">x</a>', "#gone leads to no place"),
        ('<a href="other.html#gone">x</a>', "other.html#gone leads to no place"),
        ('<a href="gone.html">x</a>', "gone.html leads to no file"),
        ('<img src="gone.png">', "gone.png leads to no file"),
        ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js"),
        ('<link href="//example.org/a.css">', "loads //example.org/a.css"),
    ],
)
def test_links_of_a_site_are_followed(body, said, tmp_path, links):
    (tmp_path / "page.html").write_text(body)
    (tmp_path / "other.html").write_text('<p id="there">')
    found = list(links.problems(tmp_path))
    assert (said is None and not found) or (len(found) == 1 and said in found[0])


def test_a_site_without_pages_is_none(tmp_path, links):
    assert list(links.problems(tmp_path)) == [f"{tmp_path} has no pages"]

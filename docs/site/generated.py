"""What pages take from the package when the site is built: settings, commands, public names.

A page has a comment, <!-- settings -->, in the place of which Sphinx reads Markdown that a function
here returns. A repository's browser shows the rest of the page.
"""

import contextlib
import functools
import inspect
import io
import multiprocessing
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dinogrl_jax
from dinogrl_jax import config, methods
from dinogrl_jax.__main__ import scripts, summary
from dinogrl_jax.interface.checks import value_text
from dinogrl_jax.interface.config_files import ROOT
from dinogrl_jax.interface.settings import Setting, leaves
from dinogrl_jax.interface.usage import meaning_text
from dinogrl_jax.retrieval.store.gallery import Found
from dinogrl_jax.retrieval.store.source import Source

MERMAID = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
NODE = re.compile(r'^ *(\w+)\["(?:<b>\w+</b><br>)?(.*)"\]$', re.MULTILINE)
TOP = {"changes": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}  # pages of files at the top
FIELD = re.compile(r"^    (\w+): ([^=#\n]+?)(?: = [^#\n]+)?(?:  # (.*))?$", re.MULTILINE)
NAMED_FILE = re.compile(r"\[(?:docs/)?\w+\.md\]\(((\w+)\.md)")  # [data.md](data.md
SHORT_TITLE = re.compile(r"^(.+) <([\w/]+)>$", re.MULTILINE)
SETTINGS_OF_HELP = "\nSettings and their values"  # where the help of a command lists them
SECTIONS = {  # what settings of a section are about; the settings say the rest
    "": "Which method, and the seed of everything that is drawn.",
    "data": "Which frames there are, and what a batch is made of.",
    "data.synthetic": "What the generator makes where `data.root` is not there yet.",
    "model": "The networks: their sizes, the type that they compute in, what is computed twice.",
    "optimizer": "How parameters follow their gradients.",
    "train": "How long a run takes, and what it prints, saves and does when something goes wrong.",
    "mesh": "How the devices of a run share the state.",
    "hosts": "How the processes of a run find each other.",
    "evaluation": "Who queries whom, by which distance, and which checkpoint is the best.",
    "ops": "Definitions of operations, or their fast forms.",
    "pretrained": "Files whose weights a training starts from.",
    "augment": "What is changed in frames at random, in training alone.",
    "loss": "The terms of the loss and their weights.",
}
WIDTH = "86"  # letters of a line of help, which fit beside the site's navigation


def settings() -> Iterator[str]:
    """Tables of the settings that all methods have, and of what each method adds and changes."""
    shared = dict(leaves(config.SETTINGS))
    yield "## Of all methods\n"
    yield "Every method has these, with this value unless it or your configuration changes it.\n"
    yield from section_tables(shared, "all")
    for name in methods.METHODS:
        declared = dict(leaves(methods.declaration(name)))
        added = {key: one for key, one in declared.items() if key not in shared}
        changed = {
            key: one
            for key, one in declared.items()
            if key in shared and one.default != shared[key].default
        }
        title = methods.named(name).TITLE
        yield f"## Of {title}\n"
        yield f"The settings of all methods that have another value in `default({name!r})`:\n"
        yield from setting_table(changed)
        yield "What the method adds, as published:\n"
        yield from section_tables(added, name)


def section_tables(declared: dict[str, Setting], whose: str) -> Iterator[str]:
    """A table under the name of each section; whose: what tells headings of one name apart."""
    sections = dict.fromkeys(name.rpartition(".")[0] for name in declared)
    for section in sections:
        inside = {n: one for n, one in declared.items() if n.rpartition(".")[0] == section}
        yield f"{{#{whose}-{section or 'top'}}}\n### {section or 'Beside the sections'}\n"
        yield f"{SECTIONS.get(section, '')}\n"
        yield from setting_table(inside)


def setting_table(declared: dict[str, Setting]) -> Iterator[str]:
    rows = (
        (f"`{name}`", f"`{value_text(one.default)}`", cell(meaning_text(one)))
        for name, one in declared.items()
    )
    yield from table(("setting", "value", "meaning, and what it may be"), rows)


def commands() -> Iterator[str]:
    """The help of each command, less the settings, which have a page of their own.

    A child of this process for each: what one imports and defines is not there for the next, and
    JAX is imported once. None of them begins its work.
    """
    import dinogrl_jax.training.loop  # noqa: F401  before the children, which then have it

    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        texts = pool.map(help_text, scripts().values(), chunksize=1)
    for (name, script), text in zip(scripts().items(), texts, strict=True):
        own, settings_too, _ = text.partition(SETTINGS_OF_HELP)
        yield f"## {name}\n\n{summary(script)}.\n"
        yield f"```text\n{own.strip()}\n```\n"
        if settings_too:
            yield "[Settings](settings.md), `--config.section.key=value`, have their own page.\n"


def help_text(script: Path) -> str:
    """What `--help` prints."""
    sys.argv = [str(script), "--help"]
    os.environ["COLUMNS"] = WIDTH
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    if not printed.getvalue():
        raise ValueError(f"{script} --help prints nothing")
    return printed.getvalue()


def public_names() -> Iterator[str]:
    """Directives that read the docstrings of what `dir(dinogrl_jax)` shows."""
    for name in dir(dinogrl_jax):
        one = getattr(dinogrl_jax, name)
        kind = "class" if isinstance(one, type) else "function"
        options = ["members:"] if kind == "class" else []
        yield f"## {name}\n"
        yield directive(f"auto{kind}", f"dinogrl_jax.{name}", options)


def fields(of: type) -> Iterator[str]:
    """The fields of a NamedTuple, with the comments behind them, which autodoc does not read."""
    rows = FIELD.findall(inspect.getsource(of))
    yield from table(
        ("field", "type", "what it is"), ((f"`{a}`", f"`{b}`", cell(c)) for a, b, c in rows)
    )


def directive(name: str, argument: str, options: Iterable[str]) -> str:
    lines = [f".. {name}:: {argument}", *(f"   :{option}" for option in options)]
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def rooms(diagram: str) -> str:
    """The nodes of a flow chart from top to bottom as a table: Mermaid draws with scripts."""
    below: dict[str, list[str]] = {}
    for line in diagram.splitlines():
        names = line.replace('"', "").split("-->")
        for lower, upper in zip(names, names[1:], strict=False):
            below.setdefault(upper.strip(), []).append(f"`{lower.strip()}`")
    nodes = reversed(NODE.findall(diagram))
    rows = [(f"`{name}`", cell(text), ", ".join(below.get(name, []))) for name, text in nodes]
    return "\n".join(table(("room", "what is in it", "stands on"), rows))


@functools.cache
def short_titles() -> dict[str, str]:
    """Pages → what the navigation calls them, in docs/index.md."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    return {page: title for title, page in SHORT_TITLE.findall(index)}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""


def cell(text: str) -> str:
    """A text in a table: nothing in it is markup."""
    return re.sub(r"([\\|*_<\[`])", r"\\\1", text)


GENERATORS: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "commands": commands,
    "public names": public_names,
    "fields of Found": lambda: fields(Found),
    "fields of Source": lambda: fields(Source),
}


def page_text(page: str, text: str) -> str:
    """What Sphinx reads of a page: what is generated, and links called as in the navigation."""
    if page in TOP:
        text = text_of_top(TOP[page])
    for name, generator in GENERATORS.items():
        mark = f"<!-- {name} -->"
        if mark in text:
            text = text.replace(mark, "\n".join(generator()))
    titles = short_titles()
    text = NAMED_FILE.sub(lambda found: f"[{titles.get(found[2], found[2])}]({found[1]}", text)
    return MERMAID.sub(lambda found: rooms(found[1]), text)


def text_of_top(file: str) -> str:
    """A file at the top, with links as from docs/."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, other in TOP.items():
        text = text.replace(f"]({other}", f"]({page}.md")
    return text


def read_source(app, docname: str, source: list[str]) -> None:
    source[0] = page_text(docname, source[0])


def signature(app, what: str, *others) -> tuple[str, None] | None:
    """None for what is shown as it is; a class is made by `open` or `load`, not by its name."""
    return ("", None) if what == "class" else None


def setup(app) -> dict:
    app.connect("source-read", read_source)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True}

"""The top of a report: what was scored, when, with which settings, and the two main figures."""

from collections.abc import Mapping
from typing import Any

from dinogrl_jax.retrieval.report.page import Html, element
from dinogrl_jax.retrieval.report.sections import direction_words
from dinogrl_jax.retrieval.scoring import headline
from dinogrl_jax.retrieval.tables import DIRECTIONS


def header(results: Mapping[str, Any]) -> list[Html]:
    """Its elements, from the content of results.json."""
    shown = [name for name in DIRECTIONS if name in results]
    tiles = (tile(name, results[name]) for name in shown)
    return [
        element("p", headline(results), class_="soft"),
        element("div", *tiles, class_="tiles"),
        facts_list(results),
        *changed_settings(results.get("settings")),
    ]


def tile(direction: str, figures: Mapping[str, float]) -> Html:
    """Rank-1 and mAP of a direction in large digits, percent."""
    shown = (("rank-1", figures["rank1"]), ("mAP", figures["mAP"]))
    pairs = (
        element("div", element("b", f"{100 * value:.1f}"), element("span", name))
        for name, value in shown
    )
    return element("div", element("p", direction_words(direction)), *pairs, class_="tile")


def facts_list(results: Mapping[str, Any]) -> Html:
    """Where the results came from, as far as it is known."""
    data, versions = results.get("data") or {}, results.get("versions") or {}
    facts = {
        "model": results.get("model"),
        "features": results.get("features"),
        "data set": " ".join(data[key] for key in ("name", "root") if data.get(key)),
        "scored": results.get("date", "").replace("T", " ").replace("+00:00", " UTC"),
        "versions": ", ".join(f"{name} {text:.12}" for name, text in versions.items()),
    }
    known = [(name, text) for name, text in facts.items() if text]
    pairs = (x for name, text in known for x in (element("dt", name), element("dd", text)))
    return element("dl", *pairs, class_="facts")


def changed_settings(lines: list[str] | None) -> list[Html]:
    """The settings that differ from the method's own, folded; nothing where there are none."""
    if not lines:
        return []
    title = f"{len(lines)} settings that differ from the method's own"
    items = (element("li", line) for line in lines)
    return [element("details", element("summary", title), element("ul", *items))]

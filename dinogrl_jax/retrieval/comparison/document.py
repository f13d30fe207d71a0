"""The comparison of runs as one HTML file."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dinogrl_jax.interface.checks import value_text
from dinogrl_jax.retrieval.comparison.figures import Compared, Estimate, cmc
from dinogrl_jax.retrieval.comparison.runs import Run
from dinogrl_jax.retrieval.report.charts import Axis, line_chart
from dinogrl_jax.retrieval.report.page import Html, element, figure, page, section, table
from dinogrl_jax.retrieval.report.sections import direction_words, figure_name
from dinogrl_jax.retrieval.tables import FIGURES

NOTE = (
    "In percent; small: 95 % bootstrap intervals over queries. Differences are to "
    "{first}, over the same queries in each sample (a paired bootstrap), and coloured where the "
    "interval leaves out 0. Intervals say how much other queries would change a figure, not how "
    "much another training would: for that, train several seeds."
)
ABSENT = object()  # the value of a setting that a run does not have


def comparison_html(runs: Sequence[Run], found: Mapping[str, Compared]) -> str:
    """The whole document."""
    date = f"{len(runs)} runs, compared {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return page(
        "Comparison of runs",
        element("p", date, class_="soft"),
        runs_section(runs),
        *(direction_section(name, one, runs) for name, one in found.items()),
        settings_section(runs),
    )


def runs_section(runs: Sequence[Run]) -> Html:
    rows = []
    for run in runs:
        source, settings = run.scored.source, run.scored.settings
        where = (settings.get("data.dataset", ""), settings.get("data.root", ""))
        rows.append([run.name, source_words(source), *map(str, where)])
    note = element("p", NOTE.format(first=runs[0].name), class_="note")
    return section("Runs", table(["", "scored", "data set", "root"], rows, "words"), note)


def source_words(source: Mapping[str, Any]) -> str:
    if "features" in source:
        return source["features"]
    return f"{source.get('checkpoint', '')} checkpoint, step {source.get('step', 'unknown')}"


def direction_section(direction: str, found: Compared, runs: Sequence[Run]) -> Html:
    """Figures, differences and CMC curves of one direction."""
    first, heads = runs[0].name, ["", *map(figure_name, FIGURES)]
    figures = [
        [name, *(estimate_cell(x) for x in row.values())] for name, row in found.figures.items()
    ]
    differences = [
        [name, *(difference_cell(x) for x in row.values())]
        for name, row in found.differences.items()
    ]
    curves = {run.name: cmc(run.scored.directions[direction].result) for run in runs}
    lowest = min(float(points[0, 1]) for points in curves.values())
    y = Axis("recognised", int(10 * lowest) / 10 if lowest < 1 else 0.9, 1, percent=True)
    x = Axis("rank", 1, max(points[-1, 0] for points in curves.values()))
    return section(
        direction_words(direction),
        element("p", f"{found.queries} queries × {found.gallery} tracklets", class_="soft"),
        table(heads, figures),
        element("h3", f"Differences to {first}"),
        table(heads, differences),
        figure(line_chart(x, y, curves), "CMC: queries with a match among the first ranks."),
    )


def estimate_cell(x: Estimate) -> Html:
    small = element("small", f"{100 * x.low:.1f}–{100 * x.high:.1f}")
    return element("td", f"{100 * x.value:.2f}", small)


def difference_cell(x: Estimate) -> Html:
    small = element("small", f"{100 * x.low:+.1f} to {100 * x.high:+.1f}")
    class_ = ("gain" if x.value > 0 else "loss") if x.is_clear else None
    return element("td", f"{100 * x.value:+.2f}", small, class_=class_)


def settings_section(runs: Sequence[Run]) -> Html:
    """The settings in which runs differ; a features file says only how it was scored."""
    title, rows = "Settings that differ", differing_settings(runs)
    if not rows:
        return section(title, element("p", "None."))
    cells = [[name, *("–" if x is ABSENT else _plain(x) for x in values)] for name, values in rows]
    return section(title, table(["", *(run.name for run in runs)], cells, "words"))


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """(name, value of each run, ABSENT where it has none) where runs with settings disagree."""
    every = [run.settings for run in runs]
    names = sorted(set().union(*every))
    rows = [(name, [one.get(name, ABSENT) for one in every]) for name in names]
    return [(name, values) for name, values in rows if _disagree(values, runs)]


def _disagree(values: Sequence[Any], runs: Sequence[Run]) -> bool:
    pairs = zip(values, runs, strict=True)
    known = [x for x, run in pairs if x is not ABSENT or run.scored.settings]
    return any(x != known[0] for x in known)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else value_text(value)

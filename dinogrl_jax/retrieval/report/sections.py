"""The sections of a report as HTML, from the results of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.metrics import Result
from dinogrl_jax.retrieval.report.charts import Axis, histogram_chart, line_chart, scatter_chart
from dinogrl_jax.retrieval.report.page import Html, element, figure, join, section, table
from dinogrl_jax.retrieval.report.pairs import MOST_CAMERAS, CameraMatrix, Pairs
from dinogrl_jax.retrieval.report.projection import Projection
from dinogrl_jax.retrieval.report.subjects import Subject
from dinogrl_jax.retrieval.report.verification import (
    FALSE_ACCEPTS,
    Verification,
    equal_error_rate,
    query_step,
    roc_area,
    roc_points,
    threshold,
)
from dinogrl_jax.retrieval.tables import FIGURES

BINS = 60


def direction_words(direction: str) -> str:
    return direction.replace("_to_", " → ")


def figure_name(key: str) -> str:
    """The key of a figure as people write it: rank-1."""
    return key.replace("rank", "rank-")


def figures_section(evaluation: scoring.Evaluation, intervals: Mapping, skipped: Mapping) -> Html:
    """The table of figures with their intervals, and the queries without a match."""
    rows = []
    for name, row in scoring.direction_figures(evaluation).items():
        cells: list[object] = [direction_words(name)]
        for key in FIGURES:
            low, high = intervals[name][key]
            small = element("small", f"{100 * low:.1f}–{100 * high:.1f}")
            cells.append(element("td", f"{100 * row[key]:.2f}", small))
        chance = f"{100 * row['chance_rank1']:.2f}"
        rows.append([*cells, chance, f"{row['queries']} × {row['gallery']}"])
    names = [*map(figure_name, FIGURES), "chance rank-1"]
    note = "Percent. Small: 95 % bootstrap interval over queries."
    lists = [element("p", line) for line in scoring.skipped_lines({"skipped": skipped})]
    figures = table(["", *names, "queries × gallery"], rows)
    return section("Figures", figures, element("p", note, class_="note"), *lists)


def ranks_section(results: Mapping[str, Result]) -> Html:
    """CMC curves and the distribution of the queries' AP."""
    last = min(50, max(r.gallery for r in results.values()))
    places, edges = np.arange(1, last + 1), np.linspace(0, 1, 21)
    cmc, shares = {}, {}
    for name, r in results.items():
        known = [(r.first[r.valid] <= k).mean() for k in places]
        cmc[direction_words(name)] = np.stack([places, known], 1)
        shares[direction_words(name)] = np.histogram(r.ap[r.valid], edges)[0] / r.queries
    low = min(float(points[0, 1]) for points in cmc.values())
    y = Axis("recognised", np.floor(10 * low) / 10 if low < 1 else 0.9, 1, percent=True)
    curve = line_chart(Axis("rank", 1, max(last, 2)), y, cmc)
    histogram = histogram_chart("average precision", edges, shares)
    charts = (
        figure(curve, "CMC: queries with a match among the first ranks."),
        figure(histogram, "AP of the queries."),
    )
    return section("Ranks", element("div", *charts, class_="charts"))


def verification_section(v: Verification, found: Sequence[Pairs], about: str) -> Html:
    """Histograms of distances, ROC and thresholds."""
    title = "Same or different person"
    if not len(v.same) or not len(v.different):
        return section(title, element("p", "There are no pairs of both kinds."))
    series = {"same": v.same.astype(np.float64), "different": v.different.astype(np.float64)}
    edges = bin_edges(min(x[0] for x in series.values()), max(x[-1] for x in series.values()))
    shares = {name: np.histogram(x, edges)[0] / len(x) for name, x in series.items()}
    lowest = max(1 / len(v.different), 1e-5)
    x = Axis("false accepts", min(lowest, 0.5), 1, log=True, percent=True)
    y, points = Axis("true accepts", 0, 1, percent=True), roc_points(v)
    roc = line_chart(x, y, {"": points[points[:, 0] >= lowest]})
    charts = (
        figure(histogram_chart("distance", edges, shares), "Distances of both kinds of pairs."),
        figure(
            roc,
            f"ROC; the area below it is {roc_area(v):.4f}, the equal error rate "
            f"{100 * equal_error_rate(v):.2f} %.",
        ),
    )
    counts = f"{len(v.same):,} pairs of one person, {len(v.different):,} of different people"
    steps = {*map(query_step, found)} - {1}
    if steps:
        counts += f", of every {max(steps)}th query"
    return section(
        title,
        element("p", f"{counts}, as the protocol counts them. {about}", class_="soft"),
        element("div", *charts, class_="charts"),
        element("h3", "Thresholds"),
        threshold_table(v),
    )


def bin_edges(low: float, high: float) -> Float[np.ndarray, " n1"]:
    """The edges of a histogram's bins, lowest value to highest; they are apart if these agree."""
    room = 1e-6 * max(abs(low), abs(high), 1e-300)
    if high - low < room:
        low, high = low - max(room, 0.5), high + max(room, 0.5)
    return np.linspace(low, high, BINS + 1)


def threshold_table(v: Verification) -> Html:
    rows = []
    for share in FALSE_ACCEPTS:
        words = ["too few pairs", ""]
        if t := threshold(v, share):
            words = [f"{t.distance:.6g}", f"{100 * t.true_accepts:.2f} %"]
        rows.append([f"{100 * share:g} %", *words])
    return table(["false accepts ≤", "distance below", "true accepts"], rows)


def cameras_section(matrices: Mapping[str, CameraMatrix]) -> Html:
    """mAP from each camera to each camera, shaded."""
    blocks = []
    for name, m in matrices.items():
        if not m.query_cameras:
            many = element("p", f"There are more than {MOST_CAMERAS} cameras.")
            blocks.append(element("div", element("h3", direction_words(name)), many))
            continue
        rows = [
            [own, *map(_shaded_cell, m.mAP[i].tolist(), m.queries[i].tolist())]
            for i, own in enumerate(m.query_cameras)
        ]
        matrix = table(["", *m.gallery_cameras], rows, "matrix")
        blocks.append(element("div", element("h3", direction_words(name)), matrix, class_="block"))
    note = (
        "mAP in percent of the queries of one camera (rows) in a gallery of one camera (columns); "
        "hovering shows how many. No figure: no match to find there."
    )
    body = element("div", *blocks, class_="charts")
    return section("Cameras", element("p", note, class_="soft"), body)


def _shaded_cell(value: float, queries: int) -> Html:
    if not queries:
        return element("td", "·", class_="soft")
    shade = f"background: color-mix(in srgb, var(--first) {70 * value:.0f}%, transparent)"
    return element("td", f"{100 * value:.0f}", style=shade, title=f"{queries} queries")


def descriptors_section(p: Projection, subject: Subject) -> Html:
    """t-SNE, with a legend of the identities' colours."""
    count = int(p.identity.max()) + 1
    names = [
        f"identity {subject.identity[row]}, {subject.modality[row]}, camera {subject.camera[row]}"
        for row in p.rows
    ]
    visible = [subject.modality[row] == "visible" for row in p.rows]
    chart = scatter_chart(p.points, (360 * p.identity / count).tolist(), visible, names)
    colours = []
    for number in range(count):
        row = p.rows[np.argmax(p.identity == number)]
        dot = element("span", "●", style=f"color: hsl({360 * number / count:.0f} 65% var(--hue))")
        colours.append(join(dot, " ", subject.identity[row], "  "))
    note = (
        f"t-SNE of {len(p.rows)} tracklets of {count} identities: colour is the identity, "
        "● visible, ▲ infrared. Only neighbourhoods mean something, not far distances."
    )
    return section("Descriptors", element("p", note, class_="soft"), chart, element("p", *colours))

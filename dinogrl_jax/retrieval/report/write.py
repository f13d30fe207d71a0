"""The complete report."""

from collections.abc import Mapping
from pathlib import Path

from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.directions import are_exchanged
from dinogrl_jax.retrieval.report import sections
from dinogrl_jax.retrieval.report.page import element, page
from dinogrl_jax.retrieval.report.pairs import camera_matrix, direction_pairs, verification
from dinogrl_jax.retrieval.report.projection import tsne_projection
from dinogrl_jax.retrieval.report.ranked_lists import shown_lists
from dinogrl_jax.retrieval.report.ranked_lists_section import ranked_lists_section
from dinogrl_jax.retrieval.report.subjects import Subject

RERANKED = "Re-ranked distances depend on the whole gallery: a threshold serves this one only."


def write_report(
    path: Path, evaluation: scoring.Evaluation, subject: Subject, results: Mapping[str, object]
) -> None:
    """Write the report to an HTML file; `results` is the content of results.json."""
    text = report_html(evaluation, subject, results)
    with atomic_write(path) as file:
        # file names may hold bytes that are no text
        file.write(text.encode(errors="replace"))


def report_html(
    evaluation: scoring.Evaluation, subject: Subject, results: Mapping[str, object]
) -> str:
    """The report as HTML."""
    directions, name = evaluation.directions, evaluation.options.distance
    found, lists = {}, {}
    for direction, d in directions.items():
        reranked = evaluation.reranked.get(direction)
        found[direction] = direction_pairs(d, name, reranked)
        lists[direction] = shown_lists(d, evaluation.results[direction], name, reranked)
    # exchanged sets have the same pairs twice, unless re-ranked distances differ
    once = are_exchanged(directions) and not evaluation.reranked
    judged = list(found.values())[: 1 if once else None]
    points = tsne_projection(list(directions.values()), subject.identity, name)
    return page(
        "Evaluation report",
        element("p", scoring.headline(results), class_="soft"),
        sections.figures_section(evaluation, results["intervals"], results["skipped"]),
        sections.ranks_section(evaluation.results),
        sections.verification_section(
            verification(judged), judged, RERANKED if evaluation.reranked else ""
        ),
        sections.cameras_section({n: camera_matrix(p, subject.camera) for n, p in found.items()}),
        ranked_lists_section(lists, subject),
        *([sections.descriptors_section(points, subject)] if points else []),
    )

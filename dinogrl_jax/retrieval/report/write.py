"""The complete report."""

from collections.abc import Mapping
from pathlib import Path

from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.report import sections
from dinogrl_jax.retrieval.report.header import header
from dinogrl_jax.retrieval.report.page import page
from dinogrl_jax.retrieval.report.pairs import Pairs, camera_matrix
from dinogrl_jax.retrieval.report.projection import tsne_projection
from dinogrl_jax.retrieval.report.ranked_lists import shown_lists
from dinogrl_jax.retrieval.report.ranked_lists_section import ranked_lists_section
from dinogrl_jax.retrieval.report.subjects import Subject
from dinogrl_jax.retrieval.report.verification import judged_pairs, verification

RERANKED = "Re-ranked distances depend on the whole gallery: a threshold serves this one only."


def write_report(
    path: Path,
    evaluation: scoring.Evaluation,
    pairs: Mapping[str, Pairs],
    subject: Subject,
    results: Mapping[str, object],
) -> None:
    """Write the report to an HTML file.

    pairs: `pairs.evaluation_pairs`; results: the content of results.json.
    """
    text = report_html(evaluation, pairs, subject, results)
    with atomic_write(path) as file:
        # file names may hold bytes that are no text
        file.write(text.encode(errors="replace"))


def report_html(
    evaluation: scoring.Evaluation,
    pairs: Mapping[str, Pairs],
    subject: Subject,
    results: Mapping[str, object],
) -> str:
    """The report as HTML, of what `write_report` takes."""
    directions, name = evaluation.directions, evaluation.options.distance
    lists = {
        direction: shown_lists(
            d, evaluation.results[direction], name, evaluation.reranked.get(direction)
        )
        for direction, d in directions.items()
    }
    judged = judged_pairs(evaluation, pairs)
    points = tsne_projection(list(directions.values()), subject.identity, name)
    return page(
        "Evaluation report",
        *header(results),
        sections.figures_section(evaluation, results["intervals"], results["skipped"]),
        sections.ranks_section(evaluation.results),
        sections.verification_section(
            verification(judged), judged, RERANKED if evaluation.reranked else ""
        ),
        sections.cameras_section({n: camera_matrix(p, subject.camera) for n, p in pairs.items()}),
        ranked_lists_section(lists, subject),
        *([sections.descriptors_section(points, subject)] if points else []),
    )

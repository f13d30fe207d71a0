"""The report as a whole."""

from collections.abc import Mapping
from pathlib import Path

from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.protocols import exchanged
from dinogrl_jax.retrieval.report import sections
from dinogrl_jax.retrieval.report.lists import ranked_lists
from dinogrl_jax.retrieval.report.page import element, page
from dinogrl_jax.retrieval.report.pairs import camera_matrix, pairs, verification
from dinogrl_jax.retrieval.report.projection import projection
from dinogrl_jax.retrieval.report.ranked import shown
from dinogrl_jax.retrieval.report.subjects import Subject

RERANKED = "Re-ranked distances depend on the whole gallery: a threshold serves this one only."


def report(
    path: Path, evaluation: scoring.Evaluation, subject: Subject, results: Mapping[str, object]
) -> None:
    """Write the HTML file; `results` is the content of results.json."""
    text = html(evaluation, subject, results)
    with atomic_write(path) as file:
        # names may hold what is no text, of file systems
        file.write(text.encode(errors="replace"))


def html(evaluation: scoring.Evaluation, subject: Subject, results: Mapping[str, object]) -> str:
    """The page."""
    directions, name = evaluation.directions, evaluation.method.distance
    found, lists = {}, {}
    for direction, d in directions.items():
        reranked = evaluation.reranked.get(direction)
        found[direction] = pairs(d, name, reranked)
        lists[direction] = shown(d, evaluation.results[direction], name, reranked)
    # exchanged sets hold the same pairs twice, unless re-ranking tells the directions apart
    once = exchanged(directions) and not evaluation.reranked
    judged = list(found.values())[: 1 if once else None]
    points = projection(list(directions.values()), subject.identity, name)
    return page(
        "Evaluation report",
        element("p", scoring.headline(results), class_="soft"),
        sections.figures(evaluation, results["intervals"], results["skipped"]),
        sections.ranks(evaluation.results),
        sections.same_or_different(
            verification(judged), judged, RERANKED if evaluation.reranked else ""
        ),
        sections.cameras({n: camera_matrix(p, subject.camera) for n, p in found.items()}),
        ranked_lists(lists, subject),
        *([sections.map_of_descriptors(points, subject)] if points else []),
    )

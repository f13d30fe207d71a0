"""Figures of descriptors of any origin, by a protocol, a distance and a re-ranking."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from dinogrl_jax.data.problems import enumeration
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.directions import Direction, direction_results, directions
from dinogrl_jax.retrieval.distances import distance_matrix
from dinogrl_jax.retrieval.gallery import comparable_sets, junk_mask, same_camera
from dinogrl_jax.retrieval.metrics import (
    Result,
    bootstrap_intervals,
    figure_values,
    result_from_matrix,
)
from dinogrl_jax.retrieval.rerank import (
    HalvedDescriptors,
    check_memory,
    k_reciprocal_distances,
    temporal_distances,
)
from dinogrl_jax.retrieval.search import places_by_identity

RANKS = (1, 5, 10, 20)
RERANKINGS = ("none", "k_reciprocal", "temporal")


class ScoringOptions(NamedTuple):
    """How descriptors are scored."""

    protocol: str = "vcm"  # an entry of protocols.PROTOCOLS
    camera_filter: bool | None = None  # None: that of the protocol
    distance: str = "part_euclidean"  # an entry of distances.FORMULAS
    rerank: str = "none"  # an entry of RERANKINGS


class Evaluation(NamedTuple):
    """What was scored, how, and the results."""

    options: ScoringOptions
    directions: dict[str, Direction]
    results: dict[str, Result]
    reranked: dict[str, Float[np.ndarray, "q g"]]  # distances; empty without re-ranking


def evaluation_of(
    embedding: Shaped[np.ndarray, "n ..."],
    columns: dict[str, Shaped[np.ndarray, " n"] | None],
    options: ScoringOptions,
    halves: tuple[Shaped[np.ndarray, "n ..."], Shaped[np.ndarray, "n ..."]] | None = None,
) -> Evaluation:
    """The results of both directions, if they have queries.

    columns: identity, camera (or None), modality and role, as `directions` takes them.
    halves: descriptors of the first and of the second half of each tracklet, for "temporal".

    Raises InputError as `directions` does, and for a re-ranking that is unknown, lacks halves or
    gets a distance that may be negative.
    """
    _check_rerank(options, halves)
    rule = options.protocol, options.camera_filter
    found = directions(embedding, **columns, protocol=rule[0], camera_filter=rule[1])
    if options.rerank == "none":
        return Evaluation(options, found, direction_results(found, distance=options.distance), {})
    distances, results = {}, {}
    for name, d in found.items():
        distances[name] = _reranked_distances(d, options, halves)
        results[name] = result_from_matrix(distances[name], *match_and_junk_masks(d))
    return Evaluation(options, found, results, distances)


def direction_figures(evaluation: Evaluation) -> dict[str, dict]:
    """The figures of each direction as fractions of 1.

    Keys of a direction: rank1, rank5, rank10, rank20, mAP, mINP, queries, gallery, chance_rank1.
    """
    return {
        name: {
            **{f"rank{k}": float(result.cmc[k - 1]) for k in RANKS},
            "mAP": result.mAP,
            "mINP": result.mINP,
            "queries": result.queries,
            "gallery": result.gallery,
            "chance_rank1": chance_rank1(evaluation.directions[name]),
        }
        for name, result in evaluation.results.items()
    }


def evaluation_facts(evaluation: Evaluation) -> dict:
    """What results.json says beside the figures: options, 95 % intervals and skipped queries.

    `skipped` lists the rows of descriptors that have no match; `intervals` are [low, high], from
    `metrics.bootstrap_intervals`.
    """
    directions, results = evaluation.directions, evaluation.results.items()
    intervals = {name: bootstrap_intervals(figure_values(r)).items() for name, r in results}
    return {
        **options_used(evaluation),
        "intervals": {
            name: {key: list(bounds) for key, bounds in of_figures}
            for name, of_figures in intervals.items()
        },
        "skipped": {name: directions[name].query.rows[r.skipped].tolist() for name, r in results},
    }


def options_used(evaluation: Evaluation) -> dict[str, str | bool]:
    """The options by name; `camera_filter` says whether there was one."""
    filtered = any(d.junk is same_camera for d in evaluation.directions.values())
    return {**evaluation.options._asdict(), "camera_filter": filtered}


def headline(results: dict) -> str:
    """What was scored, in one line, from the content of results.json."""
    if "features" in results:
        source = results["features"]
    else:
        source = f"{results['checkpoint']} checkpoint, step {results['step']}"
    filtered = "with" if results["camera_filter"] else "without"
    how = f"{results['distance']}, {filtered} camera filter"
    reranked = "" if results["rerank"] == "none" else f", {results['rerank']} re-ranking"
    return f"{results['protocol']}, {source}; {how}{reranked}"


def skipped_lines(results: dict) -> list[str]:
    """A line for each direction with queries that have no match, naming the first rows."""
    return [
        f"{name.replace('_', ' ')}: {len(rows)} queries without a match are left out: "
        f"tracklets {enumeration(rows)}"
        for name, rows in results["skipped"].items()
        if rows
    ]


def chance_rank1(direction: Direction) -> float:
    """The expected rank-1 of a random order of the gallery."""
    query, gallery = comparable_sets(direction.query, direction.gallery)
    matches, junk = np.zeros((2, len(query.rows)))
    for q, g in places_by_identity(query, gallery):
        out = junk_mask(direction.junk, query, gallery, q[:, None], g[None, :])
        matches[q], junk[q] = (~out).sum(1), out.sum(1)
    valid = matches > 0
    return float((matches[valid] / (len(gallery.rows) - junk[valid])).mean())


def _check_rerank(options: ScoringOptions, halves) -> None:
    if options.rerank not in RERANKINGS:
        raise InputError(f"re-ranking {options.rerank!r}: choose one of {', '.join(RERANKINGS)}")
    if options.rerank != "none" and options.distance == "dot":
        raise InputError("re-ranking needs distances of 0 and more: choose another than dot")
    if options.rerank == "temporal" and halves is None:
        raise InputError(
            "temporal re-ranking needs descriptors of both halves of each tracklet: the arrays "
            "embedding_first and embedding_second (dinogrl_jax extract --halves)"
        )


def _reranked_distances(
    direction: Direction, options: ScoringOptions, halves
) -> Float[np.ndarray, "q g"]:
    sets, everyone = direction[:2], slice(None)
    check_memory(sum(len(x.rows) for x in sets), sets[0].embedding.dtype.itemsize)
    if options.rerank == "k_reciprocal":
        both = np.concatenate([x.take(everyone) for x in sets])
        matrix = distance_matrix(options.distance, both, both)
        return k_reciprocal_distances(matrix, len(direction.query.rows))
    clips = (
        HalvedDescriptors(*(x._replace(embedding=e).take(everyone) for e in (x.embedding, *halves)))
        for x in sets
    )
    return temporal_distances(*clips, distance=options.distance)


def match_and_junk_masks(direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """Which gallery entries match each query and which it ignores, [q, g] each."""
    query, gallery = comparable_sets(direction.query, direction.gallery)
    everyone = np.arange(len(query.rows))[:, None], np.arange(len(gallery.rows))[None, :]
    junk = junk_mask(direction.junk, query, gallery, *everyone)
    return query.identity[everyone[0]] == gallery.identity[everyone[1]], junk

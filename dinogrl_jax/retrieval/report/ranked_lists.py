"""The queries that a report shows, what they found, and what each part contributed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.directions import Direction
from dinogrl_jax.retrieval.gallery import DescriptorSet, comparable_sets, junk_mask
from dinogrl_jax.retrieval.metrics import Result
from dinogrl_jax.retrieval.nearest import nearest_entries

EACH = 2  # queries of each kind
LENGTH = 10  # of a ranked list
OTHERS = 128  # gallery tracklets that a match is compared with, at most


class RankedList(NamedTuple):
    """A query and its ranked list; rows are those of the descriptors."""

    kind: str  # "best", "median" or "worst"
    query: int
    ap: float
    rank: int  # of the first match
    match: int  # the nearest one
    rows: Int[np.ndarray, " k"]  # nearest first
    distance: Float[np.ndarray, " k"]
    correct: Bool[np.ndarray, " k"]  # of the query's identity
    parts: Float[np.ndarray, " p"]  # see `contributions`


def shown_queries(result: Result, each: int = EACH) -> list[tuple[str, int]]:
    """The queries of the highest, middle and lowest AP as (kind, place), each once."""
    order = np.flatnonzero(result.valid)
    order = order[np.argsort(-result.ap[order], kind="stable")]
    middle = max(0, (len(order) - each) // 2)
    kinds = {"best": order[:each], "worst": order[::-1][:each], "median": order[middle:][:each]}
    found: dict[int, str] = {}
    for kind, places in kinds.items():
        for place in places.tolist():
            found.setdefault(place, kind)
    return sorted(((kind, place) for place, kind in found.items()), key=lambda one: one[0])


def shown_lists(
    direction: Direction,
    result: Result,
    name: str,
    reranked: Float[np.ndarray, "_ _"] | None = None,
) -> list[RankedList]:
    """The ranked lists of the shown queries, by `reranked` distances if given, or the named one."""
    query, gallery = comparable_sets(direction.query, direction.gallery)
    picked = shown_queries(result)
    places = np.array([place for _, place in picked])
    few = query._replace(**{c: getattr(query, c)[places] for c in ("rows", "identity", "camera")})
    if reranked is None:
        nearby = nearest_entries(few, gallery, LENGTH, direction.junk, name)
    else:
        nearby = _reranked_nearest(direction, few, gallery, reranked[places])
    out = []
    for (kind, place), found, distance in zip(picked, *nearby, strict=True):
        found, distance = found[found >= 0], distance[found >= 0]
        row = None if reranked is None else reranked[place]
        match, parts = _nearest_match(direction, query, gallery, place, name, row)
        out.append(
            RankedList(
                kind=kind,
                query=int(query.rows[place]),
                ap=float(result.ap[place]),
                rank=int(result.first[place]),
                match=int(gallery.rows[match]),
                rows=gallery.rows[found],
                distance=distance,
                correct=gallery.identity[found] == query.identity[place],
                parts=parts,
            )
        )
    return out


def _reranked_nearest(direction, query, gallery, distance):
    everyone = np.arange(len(query.rows))[:, None], np.arange(len(gallery.rows))[None, :]
    junk = junk_mask(direction.junk, query, gallery, *everyone)
    distance = np.where(junk, np.inf, distance)
    order = np.argsort(distance, axis=1, kind="stable")[:, :LENGTH]
    distance = np.take_along_axis(distance, order, axis=1)
    return np.where(np.isfinite(distance), order, -1), distance


def _nearest_match(
    direction: Direction, query: DescriptorSet, gallery: DescriptorSet, place: int, name: str, row
) -> tuple[int, Float[np.ndarray, " p"]]:
    """The nearest match of a query, and the contributions of its parts."""
    same = gallery.identity == query.identity[place]
    junk = junk_mask(direction.junk, query, gallery, place, np.arange(len(same)))
    matches, others = np.flatnonzero(same & ~junk), np.flatnonzero(~same)
    own, candidates = query.descriptor(place), gallery.take(matches)
    if row is None:
        made = distances.exact_distances(name, own[None], candidates, np.zeros(own.shape))[0]
    else:
        made = row[matches]
    others = gallery.take(others[:: max(1, len(others) // OTHERS)])
    best = np.argmin(made)
    return int(matches[best]), contributions(name, own, candidates[best], others)


def contributions(
    name: str,
    query: Float[np.ndarray, "p d"],
    match: Float[np.ndarray, "p d"],
    others: Float[np.ndarray, "n p d"],
) -> Float[np.ndarray, " p"]:
    """How much nearer each part makes the match than other people; positive speaks for it.

    It is the mean over `others` of the term of a part, less that of the match. Terms sum to the
    distance ("part_euclidean", "squared_euclidean", "cosine", "dot") or its square ("euclidean").
    """
    if not len(others):
        return np.zeros(len(query))
    both = np.concatenate([match[None], others]).astype(np.float64)
    terms = _distance_terms(name, query.astype(np.float64), both)
    return terms[1:].mean(0) - terms[0]


def _distance_terms(name: str, query: np.ndarray, entries: np.ndarray) -> Float[np.ndarray, "n p"]:
    if name in ("cosine", "dot"):
        product = -np.einsum("pd,npd->np", query, entries)
        if name == "dot":
            return product
        lengths = np.linalg.norm(entries.reshape(len(entries), -1), axis=1) * np.linalg.norm(query)
        return product / lengths.clip(1e-12)[:, None]
    squared = ((query - entries) ** 2).sum(-1)
    return np.sqrt(squared) / len(query) if name == "part_euclidean" else squared


def part_labels(names: Sequence[str], count: int) -> list[str]:
    """The names of parts, or numbers if there are not `count` names."""
    return list(names) if len(names) == count else [f"part {i + 1}" for i in range(count)]

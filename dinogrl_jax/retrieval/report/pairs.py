"""Pairs of tracklets of an evaluation, and mAP between cameras.

A report uses a matrix of at most LIMIT pairs; if there are more, it uses evenly spaced queries.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.directions import Direction
from dinogrl_jax.retrieval.gallery import comparable_sets, distances_in_blocks, junk_mask
from dinogrl_jax.retrieval.metrics import result_from_matrix
from dinogrl_jax.retrieval.scoring import Evaluation

MOST_CAMERAS = 64  # in a matrix
LIMIT = 25_000_000  # pairs: 100 MB of distances; HITSZ-VCM fits completely
BLOCK = 2048  # rows and columns of distances that are computed at once


class Pairs(NamedTuple):
    """Some queries against the complete gallery."""

    distance: Float[np.ndarray, "q g"]
    same: Bool[np.ndarray, "q g"]  # of one identity
    counted: Bool[np.ndarray, "q g"]  # not ignored by the junk rule
    query: Int[np.ndarray, " q"]  # rows of the descriptors
    gallery: Int[np.ndarray, " g"]
    everyone: int  # queries before the limit


def direction_pairs(
    direction: Direction,
    name: str,
    reranked: Float[np.ndarray, "_ _"] | None = None,
    limit: int = LIMIT,
) -> Pairs:
    """The pairs with the distances that rank: `reranked` if given, or the named distance."""
    query, gallery = comparable_sets(direction.query, direction.gallery)
    step = -(-len(query.rows) * len(gallery.rows) // limit)
    chosen = np.arange(0, len(query.rows), step)
    places = chosen[:, None], np.arange(len(gallery.rows))[None, :]
    if reranked is not None:
        distance = reranked[chosen]
    else:
        named = functools.partial(distances.distance_matrix, name)
        distance = distances_in_blocks(named, query, gallery, chosen, places[1][0], BLOCK)
    same = query.identity[places[0]] == gallery.identity[places[1]]
    counted = ~junk_mask(direction.junk, query, gallery, *places)
    rows = direction.query.rows[chosen], direction.gallery.rows
    return Pairs(distance, same, counted, *rows, len(query.rows))


def evaluation_pairs(evaluation: Evaluation) -> dict[str, Pairs]:
    """The pairs of each direction, with the distances that rank."""
    name, reranked = evaluation.options.distance, evaluation.reranked
    return {
        direction: direction_pairs(d, name, reranked.get(direction))
        for direction, d in evaluation.directions.items()
    }


class CameraMatrix(NamedTuple):
    """mAP of queries of a camera (rows) in the gallery of a camera (columns); NaN: no matches."""

    mAP: Float[np.ndarray, "a b"]
    queries: Int[np.ndarray, "a b"]  # that have a match there
    query_cameras: list[str]
    gallery_cameras: list[str]


def camera_matrix(p: Pairs, camera: Sequence[str]) -> CameraMatrix:
    """The matrix; `camera` is the name of the camera of each row of the descriptors.

    It has no rows where there are more cameras than it can show.
    """
    of_query, of_gallery = (np.array([camera[row] for row in r]) for r in (p.query, p.gallery))
    rows, columns = (sorted(set(x.tolist()), key=_natural_key) for x in (of_query, of_gallery))
    if max(len(rows), len(columns)) > MOST_CAMERAS:
        return CameraMatrix(np.zeros((0, 0)), np.zeros((0, 0), int), [], [])
    mean = np.full((len(rows), len(columns)), np.nan)
    count = np.zeros(mean.shape, int)
    for j, b in enumerate(columns):
        there = of_gallery == b
        match, junk = p.same[:, there], ~p.counted[:, there]
        if (match & ~junk).any():
            result = result_from_matrix(p.distance[:, there], match, junk)
            for i, a in enumerate(rows):
                own = result.valid & (of_query == a)
                count[i, j] = own.sum()
                mean[i, j] = result.ap[own].mean() if count[i, j] else np.nan
    return CameraMatrix(mean, count, rows, columns)


def _natural_key(name: str) -> tuple:
    digits = "".join(c for c in name if c.isdecimal())[:18]
    return (int(digits) if digits else -1, name)

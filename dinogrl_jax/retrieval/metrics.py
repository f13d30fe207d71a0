"""CMC, mAP and mINP of a retrieval, exact for sets of any size, and their uncertainty."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.gallery import (
    DescriptorSet,
    JunkRule,
    comparable_sets,
    comparison_of,
    same_camera,
)
from dinogrl_jax.retrieval.search import negative_counts

MOST_TIMES = 1 << 21  # how often each query is drawn, of a block of samples: 32 MiB with a copy


class Result(NamedTuple):
    """The figures of one retrieval in float64; queries without a match enter no mean."""

    cmc: Float[np.ndarray, " k"]  # share of queries with a match among the first 1, 2, …, k
    mAP: float  # non-interpolated: precision at every match
    mINP: float  # matches over the rank of the last one
    queries: int  # that have a match
    gallery: int
    ap: Float[np.ndarray, " q"]  # of each query, 0 where skipped
    inp: Float[np.ndarray, " q"]
    first: Int[np.ndarray, " q"]  # rank of the first match, 0 where skipped
    valid: Bool[np.ndarray, " q"]

    @property
    def skipped(self) -> Int[np.ndarray, " s"]:
        """The queries without a match."""
        return np.flatnonzero(~self.valid)


def result_from_counts(
    negatives: Int[np.ndarray, "q m"],
    match: Bool[np.ndarray, "q m"],
    gallery: int,
    max_rank: int = 20,
) -> Result:
    """CMC, mAP and mINP from the number of negatives before each match (`match` False: no match).

    The rank of the i-th nearest match is i plus the negatives before it, so the order among matches
    is not needed. A CMC that is longer than the gallery stays at its last value.

    Raises InputError if no query has a match.
    """
    valid = match.any(1)
    if not valid.any():
        raise InputError(
            f"none of {len(match)} queries has a match among {gallery} gallery tracklets: "
            "compare their identities, cameras and the camera filter"
        )
    # places without a match go last
    before = np.sort(np.where(match, negatives, np.iinfo(np.int32).max), axis=1)
    nth = np.arange(1, match.shape[1] + 1)
    count = match.sum(1)
    rank = before + nth
    ap = np.where(nth <= count[:, None], nth / rank, 0).sum(1) / count.clip(1)
    first = np.where(valid, rank[:, 0], 0)
    last = np.take_along_axis(rank, count.clip(1)[:, None] - 1, axis=1)[:, 0]
    inp = np.where(valid, count / last, 0)
    return result_of_queries(ap, inp, first, gallery, max_rank)


def result_of_queries(
    ap: Float[np.ndarray, " q"],
    inp: Float[np.ndarray, " q"],
    first: Int[np.ndarray, " q"],
    gallery: int,
    max_rank: int = 20,
) -> Result:
    """The figures of what each query reached; `first` is 0 where a query has no match."""
    valid = first > 0
    cmc = (first[valid, None] <= np.arange(1, max_rank + 1)).mean(0)
    means = float(ap[valid].mean()), float(inp[valid].mean())
    return Result(cmc, *means, int(valid.sum()), gallery, ap, inp, first, valid)


def result_from_matrix(
    distance: Float[ArrayLike, "q g"],
    match: Bool[np.ndarray, "_ _"],  # [q, g], which the message below checks
    junk: Bool[np.ndarray, "_ _"],
) -> Result:
    """The figures of a distance matrix, for masks of any rule; junk counts more than match.

    Raises InputError for shapes that disagree, NaN, or if no query has a match.
    """
    distance = np.asarray(distance)
    if not distance.shape == match.shape == junk.shape:
        raise InputError(
            f"distance {distance.shape}, match {match.shape} and junk {junk.shape} disagree"
        )
    nan = np.isnan(distance).any(1)
    if nan.any():
        raise InputError(f"row {np.argmax(nan)} of the distance matrix has NaN")
    # An entry precedes another if it is nearer, or equally near and earlier in the gallery.
    order = np.argsort(np.where(junk, np.inf, distance), axis=1, kind="stable")
    hit, miss = (np.take_along_axis(x & ~junk, order, axis=1) for x in (match, ~match))
    first = np.argsort(~hit, axis=1, kind="stable")[:, : hit.sum(1).max(initial=0)]
    negatives, hit = (np.take_along_axis(x, first, axis=1) for x in (miss.cumsum(1), hit))
    return result_from_counts(negatives, hit, distance.shape[1])


def one_direction(
    query: DescriptorSet,
    gallery: DescriptorSet,
    junk: JunkRule = same_camera,
    distance: str = "part_euclidean",
    **options,
) -> Result:
    """The figures of the queries against the gallery, exact for sets of any size.

    `options`: `size` (rows and columns of a block, 1024) and `devices` (all local ones). The
    embedding may be any array that yields rows, also a `numpy.memmap`; gallery rows are read twice.

    Raises InputError for an empty set, widths that disagree, NaN, or if no query has a match.
    """
    query, gallery = comparable_sets(query, gallery)
    comparison = comparison_of(distance, junk, query, **options)
    (counts,) = negative_counts(query, gallery, comparison)
    return result_from_counts(*counts, len(gallery.rows))


def both_directions(
    query: DescriptorSet,
    gallery: DescriptorSet,
    junk: JunkRule = same_camera,
    distance: str = "part_euclidean",
    **options,
) -> tuple[Result, Result]:
    """`one_direction`, and the same with the sets exchanged, from one pass over the distances."""
    query, gallery = comparable_sets(query, gallery)
    comparison = comparison_of(distance, junk, query, **options)
    counts = negative_counts(query, gallery, comparison, both=True)
    searched = zip(counts, (gallery, query), strict=True)
    return tuple(result_from_counts(*found, len(others.rows)) for found, others in searched)


class Interval(NamedTuple):
    low: float
    high: float


def figure_values(result: Result) -> dict[str, Float[np.ndarray, " v"]]:
    """What each of v valid queries adds to a figure: rank1, 5, 10, 20, mAP, mINP are the means."""
    columns = {f"rank{k}": result.first <= k for k in (1, 5, 10, 20)}
    columns |= {"mAP": result.ap, "mINP": result.inp}
    return {name: x[result.valid].astype(np.float64) for name, x in columns.items()}


def bootstrap_intervals(
    values: Mapping[str, Float[np.ndarray, " v"]],
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of means over resampled queries: of the figures, for `figure_values`.

    For the differences of two results, query by query, they are those of a paired bootstrap. They
    say how much other queries would change the figures, not how much another training would.
    """
    table = np.stack([*values.values()], 1)
    tails = (1 - level) / 2, (1 + level) / 2
    bounds = np.quantile(_resampled_means(table, samples, seed), tails, axis=0)
    return {name: Interval(*map(float, b)) for name, b in zip(values, bounds.T, strict=True)}


def _resampled_means(
    table: Float[np.ndarray, "v f"], samples: int, seed: int
) -> Float[np.ndarray, "s f"]:
    """The means of the columns over resampled rows, made in blocks that need little memory."""
    rng, count = np.random.default_rng(seed), len(table)
    share, block = np.full(count, 1 / count), max(1, MOST_TIMES // count)
    means = []
    for start in range(0, samples, block):
        times = rng.multinomial(count, share, min(block, samples - start))
        means.append(times @ table / count)
    return np.concatenate(means)

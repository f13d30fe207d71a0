"""Same person or not, by a threshold of the distance: thresholds, ROC, equal error rate."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dinogrl_jax.retrieval.directions import are_exchanged
from dinogrl_jax.retrieval.report.pairs import Pairs
from dinogrl_jax.retrieval.scoring import Evaluation

FALSE_ACCEPTS = (0.1, 0.01, 0.001, 0.0001)
ROC_POINTS = 25  # of verification_facts


class Verification(NamedTuple):
    """Ascending distances of pairs of one person and of different people."""

    same: Float[np.ndarray, " s"]
    different: Float[np.ndarray, " n"]


def verification(found: Sequence[Pairs]) -> Verification:
    """The distances of all pairs that count, in all given directions, where they are numbers.

    Those of huge values are not: their squares have no place in float32.
    """
    counted = np.concatenate([p.distance[p.counted] for p in found])
    same = np.concatenate([p.same[p.counted] for p in found])
    finite = np.isfinite(counted)
    counted, same = counted[finite], same[finite]
    return Verification(np.sort(counted[same]), np.sort(counted[~same]))


class Threshold(NamedTuple):
    distance: float
    true_accepts: float  # share of the pairs of one person below the distance


def threshold(v: Verification, false_accepts: float) -> Threshold | None:
    """The largest distance below which at most that share of pairs of different people lies.

    None if there are too few pairs.
    """
    count = int(false_accepts * len(v.different))
    if not 1 <= count < len(v.different):
        return None
    distance = v.different[count]
    accepted = np.searchsorted(v.same, distance, side="left") / len(v.same)
    return Threshold(float(distance), float(accepted))


def roc_points(v: Verification, points: int = 200) -> Float[np.ndarray, "n 2"]:
    """(false accepts, true accepts) as shares of the pairs, evenly spaced in log false accepts."""
    count = len(v.different)
    places = np.unique(np.geomspace(1, count, points).astype(int)) - 1
    reached = np.searchsorted(v.same, v.different[places], side="left") / len(v.same)
    return np.stack([(places + 1) / count, reached], 1)


def roc_area(v: Verification) -> float:
    """The chance that a pair of one person is nearer than one of two people; ties count half."""
    below, upto = (np.searchsorted(v.different, v.same, side=side) for side in ("left", "right"))
    return float(1 - (below + upto).mean() / (2 * len(v.different)))


def equal_error_rate(v: Verification) -> float:
    """The share of false accepts where that of false rejects is equal, on the ROC's straight lines.

    An accepted pair is nearer than the threshold.
    """

    def excess(distance: np.floating) -> float:
        accepts, rejects = error_rates(v, float(distance))
        return accepts - rejects

    crossed = [bisect.bisect_left(x, 0, key=excess) for x in v]
    after = min([float(x[i]) for x, i in zip(v, crossed, strict=True) if i < len(x)] + [np.inf])
    before = max(float(x[i - 1]) for x, i in zip(v, crossed, strict=True) if i)
    (a0, r0), (a1, r1) = error_rates(v, before), error_rates(v, after)
    share = (r0 - a0) / (r0 - a0 + a1 - r1)
    return a0 + share * (a1 - a0)


def error_rates(v: Verification, distance: float) -> tuple[float, float]:
    """Shares of false accepts and of false rejects where nearer pairs are accepted."""
    # of their own type: np.searchsorted would copy millions of float32 as float64
    same, different = (x.searchsorted(x.dtype.type(distance)) / len(x) for x in v)
    return float(different), float(1 - same)


def judged_pairs(evaluation: Evaluation, found: Mapping[str, Pairs]) -> Sequence[Pairs]:
    """The pairs of all directions, each once; found: `pairs.evaluation_pairs`."""
    # exchanged sets have the same pairs twice, unless re-ranked distances differ
    once = are_exchanged(evaluation.directions) and not evaluation.reranked
    return list(found.values())[: 1 if once else None]


def verification_facts(v: Verification, found: Sequence[Pairs]) -> dict[str, Any] | None:
    """What results.json says of the pairs; None where there are none of one kind.

    `thresholds` has a distance and the true accepts below it for each share of false accepts, null
    where there are too few pairs; `roc` is pairs [false accepts, true accepts]. Shares of 1.
    """
    if not len(v.same) or not len(v.different):
        return None
    thresholds = [(share, threshold(v, share)) for share in FALSE_ACCEPTS]
    return {
        "same_pairs": len(v.same),
        "different_pairs": len(v.different),
        "every_nth_query": max(query_step(p) for p in found),
        "auc": roc_area(v),
        "eer": equal_error_rate(v),
        "thresholds": [
            {"false_accepts": share, **(t or Threshold(None, None))._asdict()}
            for share, t in thresholds
        ],
        "roc": roc_points(v, ROC_POINTS).tolist(),
    }


def query_step(pairs: Pairs) -> int:
    """1 where the pairs are of all queries, 2 where they are of every second, and so on."""
    return -(-pairs.everyone // len(pairs.query))

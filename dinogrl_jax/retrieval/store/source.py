"""What made the descriptors of a gallery, and which share of strangers a distance lets in."""

import os
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_json
from dinogrl_jax.interface.shapes import shape_problem

EVALUATION = {"step?": int, "distance?": str, "rerank?": str, "verification?": object}
THRESHOLDS = {"thresholds": [{"false_accepts": float, "distance": (float, type(None))}]}


class Threshold(NamedTuple):
    """At most that share of pairs of different people is nearer than a distance."""

    false_accepts: float  # share of 1
    distance: float


class Source(NamedTuple):
    """What a gallery keeps of the model whose descriptors it holds."""

    fingerprint: str  # equal for equal models; "" where nobody knows the model
    title: str  # for people
    distance: str  # by which the method ranks: an entry of distances.FORMULAS
    thresholds: tuple[Threshold, ...] = ()  # of an evaluation of it; none where there is none

    def false_accepts(self, distance: float) -> float | None:
        """The share of strangers' pairs that are as near, at most; None if nobody evaluated.

        It is the smallest share of the evaluation's whose threshold lies farther, 1 behind all.
        """
        shares = [x.false_accepts for x in self.thresholds if distance <= x.distance]
        return min(shares, default=1.0) if self.thresholds else None


def judged_thresholds(path: str | os.PathLike, step: int, distance: str) -> tuple[Threshold, ...]:
    """The thresholds in an evaluation.json, if it is of that step and by that distance.

    Raises InputError for a file that is damaged.
    """
    if not Path(path).exists():
        return ()
    content = read_json(path, EVALUATION)
    same = (content.get("step"), content.get("distance"), content.get("rerank"))
    if same != (step, distance, "none") or content.get("verification") is None:
        return ()
    with errors_naming(path):
        if wrong := shape_problem(content["verification"], THRESHOLDS, "verification"):
            raise InputError(wrong)
    found = content["verification"]["thresholds"]
    return tuple(
        Threshold(float(x["false_accepts"]), float(x["distance"]))
        for x in found
        if x["distance"] is not None
    )

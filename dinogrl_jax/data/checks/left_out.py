"""Lines on what a training does without, and on what is odd with what it has."""

from collections import Counter
from collections.abc import Sequence

from dinogrl_jax.data.problems import DISCARDED, SHORT, Problem
from dinogrl_jax.data.tracklets import Tracklet

SPLITS = {"train": "training", "test": "test"}
SETTINGS = {SHORT: "data.minimum_frames", DISCARDED: "data.discard_train and discard_test"}


def repeating_lines(tracklets: Sequence[Tracklet], frames: int) -> list[str]:
    """How many tracklets repeat frames to fill a clip, if any do."""
    count = sum(len(tracklet.frames) < frames for tracklet in tracklets)
    return [f"{count} tracklets have fewer than data.frames = {frames} frames, and repeat them"][
        : bool(count)
    ]


def left_out_lines(left_out: Sequence[Problem], minimum_frames: int) -> list[str]:
    """For each rule how many tracklets it left out, by split and modality."""
    lines = []
    for kind, setting in SETTINGS.items():
        gone = [problem for problem in left_out if problem.kind == kind]
        counts = Counter((problem.split, problem.modality) for problem in gone)
        words = [
            f"{count} {SPLITS.get(split, '')} {modality}".replace("  ", " ")
            for (split, modality), count in sorted(counts.items(), reverse=True)
        ]
        if words:
            rule = f"{setting} = {minimum_frames}" if kind == SHORT else setting
            lines.append(f"{rule} leaves out {len(gone)} tracklets: {', '.join(words)}")
    return lines


def counted_lines(problems: Sequence[Problem]) -> list[str]:
    """A line for each kind of problem: how many, and the first."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return [f"{kind}: {len(found)}, first {found[0]}" for kind, found in kinds.items()]

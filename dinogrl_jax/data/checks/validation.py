"""Validation: all problems of a data set at once, and its size beside the published one.

A reader stops at the first kind of damage; validation goes on and looks at the frames as well.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dinogrl_jax.data import datasets
from dinogrl_jax.data.checks import published_sizes
from dinogrl_jax.data.checks.frame_files import frame_problems, repeated_frame_problems
from dinogrl_jax.data.checks.left_out import left_out_lines
from dinogrl_jax.data.checks.usable import Demands, demands_of_data, usable_problems
from dinogrl_jax.data.problems import DISCARDED, SHORT, Problem
from dinogrl_jax.data.tracklets import MODALITIES, Tracklet, queries_and_gallery
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import printable


class Report(NamedTuple):
    """What a data set has, and what is wrong with it."""

    totals: dict[str, int]
    expected: dict[str, int]  # the published totals of this data set, as far as they are known
    problems: list[Problem]
    left_out: list[str] = []  # a line for each rule that leaves tracklets out

    @property
    def fatal(self) -> list[Problem]:
        """The problems at which training or evaluation would stop."""
        return [problem for problem in self.problems if problem.fatal]

    def as_json(self) -> dict[str, Any]:
        """The report with all its problems, for a JSON file."""
        found = [problem._asdict() for problem in self.problems]
        return {**self._asdict(), "problems": found, "usable": not self.fatal}

    def text(self, shown: int) -> str:
        """The report as lines, with the first `shown` problems of each kind and a count."""
        lines = []
        for name, count in self.totals.items():
            known = f"   published: {self.expected[name]}" if name in self.expected else ""
            lines.append(f"{count:9d} {name}{known}")
        lines += self.left_out
        kinds = dict.fromkeys((problem.kind, problem.fatal) for problem in self.problems)
        for kind, fatal in sorted(kinds, key=lambda key: not key[1]):
            own = [p for p in self.problems if (p.kind, p.fatal) == (kind, fatal)]
            lines.append(f"{'error' if fatal else 'note'}: {kind}: {len(own)}")
            lines += [f"    {problem}" for problem in own[:shown]]
            if len(own) > shown:
                lines.append(f"    and {len(own) - shown} more")
        verdict = "would stop or mean nothing: see the errors" if self.fatal else "would work"
        return "\n".join(map(printable, [*lines, f"training and evaluation {verdict}"]))


def validate(
    config: ConfigDict,
    *,
    asked: Demands | None = None,
    frame_check: str = "decode",
    workers: int = 2,
) -> Report:
    """The report on the data set of a configuration's section `data`.

    Args:
        config: as for training, with the filters that training applies.
        asked: what training and evaluation ask of it; without, what the section says.
        frame_check: "decode" each frame, check that its file does "exist", or "none".
        workers: processes that check frames; 0 or 1: this one.
    """
    problems: list[Problem] = []
    try:
        train, test = datasets.read(config, problems)
    except InputError as error:
        return Report({}, {}, [*problems, Problem("data set", str(error), config.root)])
    asked = asked or demands_of_data(config)
    left_out = [problem for problem in problems if problem.kind in (SHORT, DISCARDED)]
    told = any(problem.kind == "spelling" for problem in problems)  # by the reader, with lines
    found = usable_problems(train, test, asked, left_out)
    problems += [problem for problem in found if not (told and problem.kind == "spelling")]
    problems += repeated_frame_problems([*train, *test])
    how = config.exif_rotation, bool(config.deep_range)
    problems += frame_problems([*train, *test], frame_check, workers, *how)
    listed = len(train) + len(test) + len(left_out)
    totals = {"listed tracklets": listed, **dataset_totals(train, test)}
    expected = published_sizes.TOTALS.get(config.dataset, {})
    problems += [
        Problem("size", f"{totals[name]} {name}, {count} are published", fatal=False)
        for name, count in expected.items()
        if totals[name] != count
    ]
    return Report(totals, expected, problems, left_out_lines(left_out, config.minimum_frames))


def dataset_totals(train: Sequence[Tracklet], test: Sequence[Tracklet]) -> dict[str, int]:
    """The counts that publications state, after the filters."""
    totals = {
        "identities": len({tracklet.identity for tracklet in [*train, *test]}),
        "training identities": len({tracklet.identity for tracklet in train}),
        "training tracklets": len(train),
        "visible training tracklets": sum(one.modality == "visible" for one in train),
        "infrared training tracklets": sum(one.modality == "infrared" for one in train),
        "training frames": sum(len(tracklet.frames) for tracklet in train),
        "test tracklets": len(test),
        "test frames": sum(len(tracklet.frames) for tracklet in test),
    }
    for other, modality in (MODALITIES, MODALITIES[::-1]):
        queries, gallery = queries_and_gallery(test, modality)
        totals |= {f"{modality} queries": len(queries), f"{other} gallery": len(gallery)}
    return totals

"""Validation: all problems of a data set at once, and its size beside the published one.

A reader stops at the first kind of damage; validation goes on and looks at the frames as well.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dinogrl_jax.data import datasets, published_sizes, transforms
from dinogrl_jax.data.frames import FrameError, is_record
from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.problems import SHORT, Problem, enumeration
from dinogrl_jax.data.tracklets import MODALITIES, Tracklet, queries_and_gallery, without_modality
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import Progress

FRAME_CHECKS = ("decode", "exist", "none")  # what is done with each frame
CHUNK = 256  # frames that a worker checks before it reports


class Report(NamedTuple):
    """What a data set has, and what is wrong with it."""

    totals: dict[str, int]
    expected: dict[str, int]  # the published totals of this data set, as far as they are known
    problems: list[Problem]

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
        kinds = dict.fromkeys((problem.kind, problem.fatal) for problem in self.problems)
        for kind, fatal in sorted(kinds, key=lambda key: not key[1]):
            own = [p for p in self.problems if (p.kind, p.fatal) == (kind, fatal)]
            lines.append(f"{'error' if fatal else 'note'}: {kind}: {len(own)}")
            lines += [f"    {problem}" for problem in own[:shown]]
            if len(own) > shown:
                lines.append(f"    and {len(own) - shown} more")
        verdict = "would stop or mean nothing: see the errors" if self.fatal else "would work"
        return "\n".join([*lines, f"training and evaluation {verdict}"])


def validate(
    config: ConfigDict, *, frame_check: str = "decode", workers: int = 2, camera_filter: bool = True
) -> Report:
    """The report on the data set of a configuration's section `data`.

    Args:
        config: as for training, with the filters that training applies.
        frame_check: "decode" each frame, check that its file does "exist", or "none".
        workers: processes that check frames; 0 or 1: this one.
        camera_filter: whether queries ignore gallery tracklets of their identity and camera.
    """
    problems: list[Problem] = []
    try:
        train, test = datasets.read(config, problems)
    except InputError as error:
        return Report({}, {}, [*problems, Problem("data set", str(error), config.root)])
    problems += training_problems(train, config.identities_per_batch)
    problems += test_problems(test, camera_filter)
    problems += shared_identity_problems(train, test)
    problems += repeated_frame_problems([*train, *test])
    problems += frame_problems([*train, *test], frame_check, workers)
    short = sum(problem.kind == SHORT for problem in problems)
    totals = {"listed tracklets": len(train) + len(test) + short, **dataset_totals(train, test)}
    expected = published_sizes.TOTALS.get(config.dataset, {})
    problems += [
        Problem("size", f"{totals[name]} {name}, {count} are published", fatal=False)
        for name, count in expected.items()
        if totals[name] != count
    ]
    return Report(totals, expected, problems)


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


def training_problems(train: Sequence[Tracklet], identities: int) -> Iterator[Problem]:
    if not train:
        yield Problem("no tracklets", "the training set has no tracklets")
        return
    for modality, missing in without_modality(train).items():
        for identity in missing:
            text = f"training identity {identity} has no {modality} tracklet: training needs both"
            yield Problem("one modality", text)
    everyone = {tracklet.identity for tracklet in train}
    if len(everyone) < identities:
        text = f"{len(everyone)} training identities, fewer than a batch's {identities}"
        yield Problem("few identities", text)


def test_problems(test: Sequence[Tracklet], camera_filter: bool) -> Iterator[Problem]:
    """A test without queries, which is fatal, and queries without a match, which protocols skip."""
    directions = [queries_and_gallery(test, modality) for modality in MODALITIES]
    if not any(queries for queries, _ in directions):
        yield Problem("no queries", "the test set has no query: no figure can be computed")
    for queries, gallery in directions:
        cameras = defaultdict(set)
        for position in gallery:
            cameras[test[position].identity].add(test[position].camera)
        for query in (test[position] for position in queries):
            if not cameras[query.identity] - ({query.camera} if camera_filter else set()):
                text = f"{query}: a query without a match in the gallery"
                yield Problem("query without match", text, fatal=False)


def shared_identity_problems(
    train: Sequence[Tracklet], test: Sequence[Tracklet]
) -> Iterator[Problem]:
    both = {tracklet.identity for tracklet in train} & {tracklet.identity for tracklet in test}
    for identity in sorted(both):
        text = f"identity {identity} is in the training and in the test set: figures mean nothing"
        yield Problem("identity in both sets", text)


def repeated_frame_problems(tracklets: Sequence[Tracklet]) -> Iterator[Problem]:
    """Frames that occur more than once: two rows overlap, or a name is listed twice."""
    counts = Counter(frame for tracklet in tracklets for frame in tracklet.frames)
    for tracklet in tracklets:
        repeated = [frame for frame in dict.fromkeys(tracklet.frames) if counts[frame] > 1]
        if repeated:
            text = f"{tracklet} has frames that occur more than once: {enumeration(repeated)}"
            yield Problem("repeated frame", text, fatal=False)


def frame_problems(tracklets: Sequence[Tracklet], frame_check: str, workers: int) -> list[Problem]:
    """The problems of the frames' files, each file once, in the order of the tracklets."""
    if frame_check == "none":
        return []
    frames = list(dict.fromkeys((frame, t.modality) for t in tracklets for frame in t.frames))
    chunks = [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]
    problems_of = decoding_problems if frame_check == "decode" else missing_frame_problems
    problems: list[Problem] = []
    with Progress("checking frames", len(frames), "frames") as progress:
        found = map_in_processes(problems_of, chunks, workers)
        for chunk, more in zip(chunks, found, strict=True):
            problems += more
            progress.add(len(chunk))
    return problems


def missing_frame_problems(frames: Sequence[tuple[str, str]]) -> list[Problem]:
    return [
        Problem("missing frame", f"{frame} does not exist, though the data set lists it", frame)
        for frame, _ in frames
        if not is_record(frame) and not os.path.isfile(frame)
    ]


def decoding_problems(frames: Sequence[tuple[str, str]]) -> list[Problem]:
    """Problems of frames that cannot be decoded or have the wrong colours for their modality."""
    problems = []
    for frame, modality in frames:
        try:
            mode = transforms.decoded(frame).mode
        except FrameError as error:
            problems.append(Problem(error.kind, str(error), frame))
            continue
        if mode in ("L", "LA", "1") and modality == "visible":
            text = f"{frame} is grey though its tracklet is visible"
            problems.append(Problem("grey image", text, frame, fatal=False))
        elif mode not in ("RGB", "L"):
            text = f"{frame} is in {mode}, neither RGB nor grey: each read converts it"
            problems.append(Problem("colour mode", text, frame, fatal=False))
    return problems

"""Whether a training and its evaluations would work with a data set: one answer for all scripts.

Training asks before it writes anything, validation asks for its report; both with the settings of a
configuration, in `Demands`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from dinogrl_jax.data import sampling
from dinogrl_jax.data.checks.left_out import (
    SETTINGS,
    SPLITS,
    counted_lines,
    left_out_lines,
    repeating_lines,
)
from dinogrl_jax.data.problems import SHORT, Problem, raise_if_any
from dinogrl_jax.data.readers.spelling import Spellings, shortened_value
from dinogrl_jax.data.tracklets import (
    MODALITIES,
    UNKNOWN,
    Tracklet,
    labels,
    queries_and_gallery,
    without_modality,
)


class Demands(NamedTuple):
    """What a training and its evaluations ask of a data set."""

    identities: int = 1  # in a batch
    cameras: int = 0  # of an identity in a batch of aligned pairs; 0: pairs need no alignment
    frames: int = 1  # of a clip
    minimum_frames: int = 1
    camera_filter: bool = True  # a query ignores its own identity and camera
    visible_multiple: int = 1  # visible queries and gallery are cut to a multiple of this
    exchanged: bool = False  # visible queries are the gallery of infrared ones
    direction: str = ""  # that the best checkpoint is chosen by, as "visible_to_infrared"
    evaluated: bool = True  # there is a test set


def demands(
    config: ConfigDict, camera_filter: bool, visible_multiple: int, exchanged: bool
) -> Demands:
    """The demands of a configuration.

    camera_filter, visible_multiple, exchanged: what its protocol and its filter come to.
    """
    best = config.evaluation.best.partition(".")[0]
    return demands_of_data(config.data)._replace(
        camera_filter=camera_filter,
        visible_multiple=visible_multiple,
        exchanged=exchanged,
        direction="" if best == "mean" else best,
    )


def demands_of_data(data: ConfigDict) -> Demands:
    """The demands of a configuration's section `data`."""
    return Demands(
        identities=data.identities_per_batch,
        cameras=data.tracklets_per_identity if data.batch_rule == "camera-pairs" else 0,
        frames=data.frames,
        minimum_frames=data.minimum_frames,
    )


def check_usable(
    train: Sequence[Tracklet],
    test: Sequence[Tracklet],
    asked: Demands,
    left_out: Sequence[Problem] = (),
    root: str = "the data set",
) -> list[str]:
    """Lines on what is left out and on what is odd; InputError where training would not work.

    left_out: what `datasets.read` noted.
    """
    found = list(usable_problems(train, test, asked, left_out))
    raise_if_any([problem for problem in found if problem.fatal], root)
    return [
        *left_out_lines(left_out, asked.minimum_frames),
        *counted_lines(found),
        *repeating_lines([*train, *test], asked.frames),
    ]


def usable_problems(
    train: Sequence[Tracklet],
    test: Sequence[Tracklet],
    asked: Demands,
    left_out: Sequence[Problem] = (),
) -> Iterator[Problem]:
    """All problems of the sets; at the fatal ones training or its evaluations would stop."""
    yield from spelling_problems([*train, *test])
    yield from training_problems(train, asked, left_out)
    if asked.evaluated:
        yield from evaluation_problems(test, asked, left_out)
    yield from shared_identity_problems(train, test)


def empty_problem(split: str, asked: Demands, left_out: Sequence[Problem]) -> Problem:
    """Why a set has no tracklets, as far as it is known."""
    gone = Counter(problem.kind for problem in left_out if problem.split == split)
    reasons = [
        f"{count} are left out by {SETTINGS[kind]}"
        + (f" = {asked.minimum_frames}: lower it" if kind == SHORT else "")
        for kind, count in gone.items()
    ]
    cure = f'none is listed (a manifest\'s lines say "split": "{split}"): add them'
    text = f"the {SPLITS[split]} set has no tracklets: {' and '.join(reasons) or cure}"
    return Problem("no tracklets", text)


def training_problems(
    train: Sequence[Tracklet], asked: Demands, left_out: Sequence[Problem] = ()
) -> Iterator[Problem]:
    if not train:
        yield empty_problem("train", asked, left_out)
        return
    for modality, missing in without_modality(train).items():
        for identity in missing:
            text = f"training identity {identity} has no {modality} tracklet: training needs both"
            yield Problem("one modality", text)
    everyone = {tracklet.identity for tracklet in train}
    if len(everyone) < asked.identities:
        text = f"{len(everyone)} training identities, fewer than a batch's {asked.identities}"
        yield Problem("few identities", f"{text}: lower data.identities_per_batch")
    elif asked.cameras:
        yield from pairing_problems(train, asked)


def pairing_problems(train: Sequence[Tracklet], asked: Demands) -> Iterator[Problem]:
    """Too few identities with aligned pairs, and how many tracklets have none."""
    pairs = sampling.aligned_pairs(train, labels(train))
    seen = defaultdict(set)
    for label, position in zip(pairs.labels.tolist(), pairs.visible.tolist(), strict=True):
        seen[label].add(train[position].camera)
    ready = sum(len(cameras) >= asked.cameras for cameras in seen.values())
    if ready < asked.identities:
        text = (
            f"{ready} training identities have aligned pairs in data.tracklets_per_identity = "
            f"{asked.cameras} cameras, fewer than a batch's {asked.identities}: lower them, or set "
            "data.batch_rule to identity"
        )
        yield Problem("few pairs", text)
    for _ in range(len(train) - 2 * len(pairs.labels)):
        text = "a training tracklet belongs to no aligned pair: data.batch_rule never draws it"
        yield Problem("tracklet without pair", text, fatal=False)


def evaluation_problems(
    test: Sequence[Tracklet], asked: Demands, left_out: Sequence[Problem] = ()
) -> Iterator[Problem]:
    """What would stop an evaluation, and the queries that it would skip."""
    if not test:
        yield empty_problem("test", asked, left_out)
        return
    some = False
    for own, other in (MODALITIES, MODALITIES[::-1]):
        queries, gallery = taking_part(test, own, asked)
        some |= bool(queries)
        if queries and not gallery:
            text = f"{len(queries)} {own} queries, but no {other} test tracklet is in the gallery"
            yield Problem("empty gallery", text)
        elif queries:
            yield from matching_problems(queries, gallery, own, asked.camera_filter)
        elif asked.direction == f"{own}_to_{other}":
            text = f"evaluation.best = {asked.direction}: the test set has no {own} query"
            yield Problem("no queries", text)
    if not some:
        yield Problem("no queries", "the test set has no query: no figure can be computed")
    if asked.camera_filter:
        yield from unknown_camera_problems(test)


def taking_part(
    test: Sequence[Tracklet], modality: str, asked: Demands
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The queries of a modality, and the gallery of the other one, as a protocol cuts them."""
    sets = queries_and_gallery(test, modality, asked.exchanged)
    found = []
    for positions, own in zip(sets, (modality, *{*MODALITIES} - {modality}), strict=True):
        multiple = asked.visible_multiple if own == "visible" else 1
        found.append([test[i] for i in positions[: len(positions) - len(positions) % multiple]])
    return found[0], found[1]


def matching_problems(
    queries: Sequence[Tracklet], gallery: Sequence[Tracklet], modality: str, camera_filter: bool
) -> Iterator[Problem]:
    """Queries without a match in the gallery, which are skipped, or all of which are."""
    cameras = defaultdict(set)
    for tracklet in gallery:
        cameras[tracklet.identity].add(tracklet.camera)
    alone = [
        query
        for query in queries
        if not cameras[query.identity] - ({query.camera} if camera_filter else set())
    ]
    if len(alone) == len(queries):
        filtered = " in another camera, as the camera filter asks" if camera_filter else ""
        text = f"none of {len(queries)} {modality} queries has a match{filtered}"
        cure = "add tracklets, or set evaluation.camera_filter=off" if camera_filter else "add some"
        yield Problem("no matches", f"{text}: {cure}")
    for query in alone:
        text = f"{query}: a query without a match in the gallery"
        yield Problem("query without match", text, fatal=False)


def unknown_camera_problems(test: Sequence[Tracklet]) -> Iterator[Problem]:
    unknown = [tracklet for tracklet in test if tracklet.camera == UNKNOWN]
    if unknown:
        text = (
            f"{len(unknown)} test tracklets have no camera, that of {unknown[0].frames[0]} first, "
            "which the camera filter needs: name them, or set evaluation.camera_filter=off"
        )
        yield Problem("unknown camera", text)


def spelling_problems(tracklets: Sequence[Tracklet]) -> Iterator[Problem]:
    """Identities that are one name in two spellings: 7 and "0007"."""
    spellings, seen = Spellings("identity"), set()
    for tracklet in tracklets:
        identity = tracklet.identity
        if isinstance(identity, str) and identity not in seen:
            seen.add(identity)
            place = tracklet.frames[0] if tracklet.frames else "?"
            if text := spellings.problem(identity, place):
                yield Problem("spelling", f"{place}: {text}")


def shared_identity_problems(
    train: Sequence[Tracklet], test: Sequence[Tracklet]
) -> Iterator[Problem]:
    both = {tracklet.identity for tracklet in train} & {tracklet.identity for tracklet in test}
    for identity in sorted(both, key=str):
        text = f"identity {shortened_value(identity)} is in the training and in the test set"
        yield Problem("identity in both sets", f"{text}: figures mean nothing, rename or remove it")

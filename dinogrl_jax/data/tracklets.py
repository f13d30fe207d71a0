"""The record of a tracklet, the same for every data set, and what must hold of a set of them."""

from collections.abc import Sequence
from typing import NamedTuple

from dinogrl_jax.data.problems import DISCARDED, SHORT, Problem, enumeration, raise_if_any
from dinogrl_jax.interface.errors import InputError

UNKNOWN = -1  # a camera, or an identity
MODALITIES = ("visible", "infrared")  # in this order on axis 1 of a training batch
ROLES = ("query", "gallery", "both")  # of test tracklets; "train" is that of the others


class Tracklet(NamedTuple):
    """One person seen by one camera for a while."""

    frames: tuple[str, ...]  # in order of time; `frames.open_frame` says what a name may be
    identity: int | str
    camera: int  # as the data set numbers it; -1 unknown
    modality: str  # "visible" or "infrared"
    role: str  # "train", or in a test one of ROLES
    pair: int = -1  # shared with the other modality's tracklet that was filmed at once; -1 none
    name: str = ""  # its first frame below the data set's root, where `frames` do not say it

    def __str__(self) -> str:
        return f"{self.modality} tracklet of identity {self.identity}, camera {self.camera}"


def labels(tracklets: Sequence[Tracklet]) -> dict[int | str, int]:
    """The label of each identity: 0, 1, … in sorted order."""
    identities = sorted({tracklet.identity for tracklet in tracklets})
    return {identity: label for label, identity in enumerate(identities)}


def cameras(tracklets: Sequence[Tracklet]) -> tuple[int, ...]:
    """The known cameras, as the data set numbers them, sorted."""
    return tuple(sorted({tracklet.camera for tracklet in tracklets} - {UNKNOWN}))


def check_cameras(tracklets: Sequence[Tracklet], who: str) -> None:
    """Raise InputError if the camera of a training tracklet is unknown to `who` needs it."""
    unknown = [tracklet for tracklet in tracklets if tracklet.camera == UNKNOWN]
    if unknown:
        more = f" and of {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"{who} needs cameras, and that of the training tracklet {unknown[0].frames[0]}{more} "
            "is unknown: name the cameras in the data set, or leave these tracklets out"
        )


def queries_and_gallery(
    tracklets: Sequence[Tracklet], query_modality: str, exchanged: bool = False
) -> tuple[list[int], list[int]]:
    """The positions of one direction's queries and of its gallery, the other modality.

    exchanged: as for `direction_roles`.
    """
    asking, searched = direction_roles(query_modality, exchanged)
    queries, gallery = [], []
    for position, tracklet in enumerate(tracklets):
        if tracklet.modality == query_modality and tracklet.role in (asking, "both"):
            queries.append(position)
        if tracklet.modality != query_modality and tracklet.role in (searched, "both"):
            gallery.append(position)
    return queries, gallery


def direction_roles(query_modality: str, exchanged: bool) -> tuple[str, str]:
    """The roles that the queries and the gallery of a direction have in the data set.

    exchanged: from visible to infrared, the gallery of the other direction looks for its queries.
    """
    if exchanged and query_modality == "visible":
        return "gallery", "query"
    return "query", "gallery"


def check(tracklets: Sequence[Tracklet], split: str) -> None:
    """Raise InputError if there is no tracklet, or one without frames or with a wrong modality."""
    if not tracklets:
        raise InputError(f"the {split} set has no tracklets: check the data folder and the filters")
    problems = []
    for position, tracklet in enumerate(tracklets):
        name = f"tracklet {position} (identity {tracklet.identity}, camera {tracklet.camera})"
        if not tracklet.frames:
            problems.append(f"{name} has no frames")
        if tracklet.modality not in MODALITIES:
            problems.append(f"{name} is {tracklet.modality!r}, neither visible nor infrared")
    raise_if_any(problems, f"the {split} set")


def check_training(tracklets: Sequence[Tracklet], identities: int) -> None:
    """Raise InputError unless at least `identities` are there, each in both modalities."""
    check(tracklets, "training")
    everyone = {tracklet.identity for tracklet in tracklets}
    problems = [
        f"no {modality} tracklet of identity {enumeration(missing)}"
        for modality, missing in without_modality(tracklets).items()
        if missing
    ]
    if problems:
        problems.append("training needs both: add them or leave the identities out")
    if len(everyone) < identities:
        problems.append(
            f"{len(everyone)} identities, fewer than data.identities_per_batch = {identities}"
        )
    raise_if_any(problems, "the training set")


def without_modality(tracklets: Sequence[Tracklet]) -> dict[str, list[int | str]]:
    """For either modality the identities that have no tracklet of it, sorted."""
    seen = {modality: set() for modality in MODALITIES}
    for tracklet in tracklets:
        seen[tracklet.modality].add(tracklet.identity)
    everyone = set().union(*seen.values())
    return {modality: sorted(everyone - those) for modality, those in seen.items()}


def long_enough(
    tracklets: Sequence[Tracklet],
    minimum: int,
    left_out: list[Problem],
    listed: Sequence[int] | None = None,
) -> list[Tracklet]:
    """The tracklets of at least `minimum` frames, and of 1; the others become problems.

    listed: the frames of each before a discard list took some.
    """
    kept = []
    counts = listed or [len(tracklet.frames) for tracklet in tracklets]
    for tracklet, count in zip(tracklets, counts, strict=True):
        if len(tracklet.frames) >= max(minimum, 1):
            kept.append(tracklet)
        else:
            left_out.append(left_out_problem(tracklet, count, minimum))
    return kept


def left_out_problem(
    tracklet: Tracklet, listed: int, minimum: int, file: str = "", line: int = 0
) -> Problem:
    """The note on a tracklet that is too short, or became so when frames were discarded."""
    split = "train" if tracklet.role == "train" else "test"
    remaining = len(tracklet.frames)
    words = f"left out: {remaining} of {listed} frames remain, fewer than {max(minimum, 1)}"
    text = words if line else f"{tracklet}, is {words}"
    kind = DISCARDED if listed >= max(minimum, 1) else SHORT
    return Problem(kind, text, file, line, False, split, tracklet.modality)

"""The record of a tracklet, the same for every data set, and what must hold of a set of them."""

from collections.abc import Sequence
from typing import NamedTuple

from dinogrl_jax.errors import InputError

MODALITIES = ("visible", "infrared")  # in this order on axis 1 of a training batch
SHOWN = 10  # of many problems, as many as one message spells out


class Tracklet(NamedTuple):
    """One person seen by one camera for a while."""

    frames: tuple[str, ...]  # paths in order of time
    identity: int | str
    camera: int  # as the data set numbers it; -1 unknown
    modality: str  # "visible" or "infrared"
    role: str  # "train", or in a test: "query", "gallery", "both"


def labels(tracklets: Sequence[Tracklet]) -> dict[int | str, int]:
    """The label of each identity: 0, 1, … in sorted order."""
    identities = sorted({tracklet.identity for tracklet in tracklets})
    return {identity: label for label, identity in enumerate(identities)}


def queries_and_gallery(
    tracklets: Sequence[Tracklet], query_modality: str
) -> tuple[list[int], list[int]]:
    """The positions of one direction's queries and of its gallery, the other modality."""
    queries, gallery = [], []
    for position, tracklet in enumerate(tracklets):
        if tracklet.modality == query_modality and tracklet.role in ("query", "both"):
            queries.append(position)
        if tracklet.modality != query_modality and tracklet.role in ("gallery", "both"):
            gallery.append(position)
    return queries, gallery


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
    refuse(problems, f"the {split} set")


def check_training(tracklets: Sequence[Tracklet], identities: int) -> None:
    """Raise InputError unless at least `identities` are there, each in both modalities."""
    check(tracklets, "training")
    everyone = {tracklet.identity for tracklet in tracklets}
    problems = []
    for modality in MODALITIES:
        seen = {tracklet.identity for tracklet in tracklets if tracklet.modality == modality}
        if missing := sorted(everyone - seen):
            problems.append(f"no {modality} tracklet of identity {listed(missing)}")
    if problems:
        problems.append("training needs both: add them or leave the identities out")
    if len(everyone) < identities:
        problems.append(
            f"{len(everyone)} identities, fewer than data.identities_per_batch = {identities}"
        )
    refuse(problems, "the training set")


def listed(items: Sequence) -> str:
    """The first items, comma-separated, and how many more there are."""
    words = ", ".join(str(item) for item in items[:SHOWN])
    return f"{words} and {len(items) - SHOWN} more" if len(items) > SHOWN else words


def refuse(problems: Sequence[str], where: str) -> None:
    """Raise one InputError for all problems, if there are any: the first in words, then a count."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
        raise InputError(f"{where}: {'; '.join(problems[:SHOWN])}{more}")

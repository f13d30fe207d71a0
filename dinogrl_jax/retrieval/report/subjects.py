"""The names of the tracklets of an evaluation, and where their frames are."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dinogrl_jax.data.readers.listing import images_in
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.retrieval.feature_file import Features


class Shown(NamedTuple):
    """Pictures of what the network sees, with labels of their rows and columns."""

    caption: str
    make: Callable[[Sequence[int]], Sequence[UInt8[np.ndarray, "h w 3"]]]  # one of each tracklet
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


class Subject(NamedTuple):
    """The rows of the descriptors in words and pictures; "" and no frames if unknown."""

    identity: Sequence[str]
    camera: Sequence[str]
    modality: Sequence[str]
    path: Sequence[str]
    frames: Callable[[int], Sequence[str]]  # of a row, in order of time
    part_names: Sequence[str] = ()  # of a descriptor
    pictures: Sequence[Shown] = ()


def subject_of_tracklets(tracklets: Sequence[Tracklet], root: str) -> Subject:
    """The subject of a test set; paths are relative to its root, or to a manifest's folder.

    A prepared data set has the names of the one that it was made from.
    """
    folder = str(Path(root).parent) if os.path.isfile(root) else root
    return Subject(
        identity=[str(t.identity) for t in tracklets],
        camera=[str(t.camera) for t in tracklets],
        modality=[t.modality for t in tracklets],
        path=[t.name or t.frames[0].removeprefix(folder).lstrip("/") for t in tracklets],
        frames=lambda row: tracklets[row].frames,
    )


def subject_of_features(features: Features, folder: str) -> Subject:
    """The subject of a features file; `path` names a frame or a folder of frames below `folder`.

    Nothing outside `folder` is opened, whatever the file says.
    """
    count = len(features.names)
    camera = features.camera if features.camera is not None else np.full(count, "")
    return Subject(
        identity=features.names.tolist(),
        camera=["" if c == "-1" else c for c in camera.astype(str).tolist()],
        modality=features.modality.tolist(),
        path=features.path.tolist(),
        frames=lambda row: _frames_below(folder, str(features.path[row])),
    )


def _frames_below(folder: str, path: str) -> Sequence[str]:
    """The frame, or the frames in the folder, that a path names; none that lies outside `folder`.

    A link counts as what it leads to.
    """
    try:
        root = os.path.realpath(folder)
        place = os.path.realpath(os.path.join(root, path))
        if not path or not _is_below(root, place):
            return ()
        found = images_in(place) if os.path.isdir(place) else [place]
        resolved = map(os.path.realpath, found)
        return [frame for frame in resolved if _is_below(root, frame) and os.path.isfile(frame)]
    except (OSError, ValueError):  # no name that a file can have, or a folder that is not readable
        return ()


def _is_below(root: str, place: str) -> bool:
    return os.path.commonpath([root, place]) == root

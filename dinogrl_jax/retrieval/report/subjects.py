"""The names of the tracklets of an evaluation, and where their frames are."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dinogrl_jax.data.readers.manifest import IMAGES
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.retrieval.feature_file import Features


class Subject(NamedTuple):
    """The rows of the descriptors in words and pictures; "" and no frames if unknown."""

    identity: Sequence[str]
    camera: Sequence[str]
    modality: Sequence[str]
    path: Sequence[str]
    frames: Callable[[int], Sequence[str]]  # of a row, in order of time
    part_names: Sequence[str] = ()  # of a descriptor
    # by caption: rows → a picture of what the network sees in each
    pictures: Mapping[str, Callable[[Sequence[int]], Sequence[UInt8[np.ndarray, "h w 3"]]]] = {}


def subject_of_tracklets(tracklets: Sequence[Tracklet], root: str) -> Subject:
    """The subject of a test set; paths are relative to its root."""
    return Subject(
        identity=[str(t.identity) for t in tracklets],
        camera=[str(t.camera) for t in tracklets],
        modality=[t.modality for t in tracklets],
        path=[t.frames[0].removeprefix(root).lstrip("/") for t in tracklets],
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
    root = os.path.realpath(folder)
    if not path or "\0" in path:
        return ()
    place = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, place]) != root:
        return ()
    if not os.path.isdir(place):
        return (place,) if os.path.isfile(place) else ()
    names = [name for name in os.listdir(place) if name.lower().endswith(IMAGES)]
    # sorts F9 before F10
    return [os.path.join(place, name) for name in sorted(names, key=lambda x: (len(x), x))]

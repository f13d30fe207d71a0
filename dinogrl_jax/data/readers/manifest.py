"""Tracklets of any origin: a manifest of JSON lines, or a folder with a folder for each tracklet.

A line of a manifest is an object with `frames` (paths relative to the manifest, in order of time)
and `modality`, and with `identity` (a number or a name) and `camera` (a number) if they are known.
For training and tests, `split` is "train" or "test" (the default), and `role` of a test tracklet is
"query", "gallery" or "both" (the default).
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.data.problems import Problem, raise_if_any, raise_or_warn
from dinogrl_jax.data.tracklets import MODALITIES, ROLES, Tracklet
from dinogrl_jax.interface.errors import InputError

KEYS = ("frames", "identity", "camera", "modality", "split", "role")
SPLITS = ("train", "test")
IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
LARGEST = 1 << 63  # numbers are stored with 64 bits


class ListedTracklet(NamedTuple):
    """A tracklet and its name in the source."""

    tracklet: Tracklet
    path: str  # the name of its folder, or its first frame as the manifest writes it


def read_tracklets(path: str, modality: str | None = None) -> list[ListedTracklet]:
    """The tracklets of a manifest or of a folder, in their order.

    Unknown identities and cameras are −1.

    modality: of the tracklets of a folder, and of lines without one.

    Raises one InputError for all problems, with the line or folder of each.
    """
    source = Path(path)
    if source.is_dir():
        return _read_folder(source, modality)
    problems: list[Problem] = []
    listed = _read_lines(source, modality, problems)
    raise_if_any([f"line {problem.line}: {problem.text}" for problem in problems], path)
    if not listed:
        raise InputError(f"{path}: lists no tracklets")
    return listed


def read_splits(
    path: str, *, problems: list[Problem] | None = None
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets of a manifest, each of a known identity.

    If any identity is text, all are.

    problems: collects wrong lines, which are left out; None raises instead.

    Raises one InputError for all wrong lines.
    """
    if Path(path).is_dir():
        raise InputError(f"data.root = {path} is a folder: give the manifest, a file of JSON lines")
    found: list[Problem] = []
    listed = _read_lines(Path(path), None, found, identified=True)
    raise_or_warn(found, path, problems)
    tracklets = [tracklet for tracklet, _ in listed]
    if any(isinstance(tracklet.identity, str) for tracklet in tracklets):
        tracklets = [tracklet._replace(identity=str(tracklet.identity)) for tracklet in tracklets]
    train = [tracklet for tracklet in tracklets if tracklet.role == "train"]
    return train, [tracklet for tracklet in tracklets if tracklet.role != "train"]


def _read_lines(
    source: Path, modality: str | None, problems: list[Problem], identified: bool = False
) -> list[ListedTracklet]:
    try:
        lines = source.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    listed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found = _parse_entry(line, source.parent, modality)
                if identified and found.tracklet.identity == -1:
                    raise InputError("identity is missing")
                listed.append(found)
            except InputError as error:
                problems.append(Problem("line", str(error), str(source), number))
    return listed


def _parse_entry(line: bytes, folder: Path, modality: str | None) -> ListedTracklet:
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({str(error)[:80]})") from error
    if not isinstance(entry, dict):
        raise InputError('is not an object like {"frames": [...], "modality": "visible"}')
    if unknown := [key for key in entry if key not in KEYS]:
        raise InputError(f"has the unknown key {unknown[0][:40]!r}; there are {', '.join(KEYS)}")
    frames = entry.get("frames")
    if not isinstance(frames, list) or not frames or not all(map(_is_name, frames)):
        raise InputError("frames is not a list of paths with at least one")
    paths = tuple(os.path.join(folder, frame) for frame in frames)
    for name, path in zip(frames, paths, strict=True):
        if not os.path.isfile(path):
            raise InputError(f"frame {name[:200]!r} does not exist")
    stated = entry.get("modality", modality)
    if stated not in MODALITIES:
        raise InputError(f"modality is {str(stated)[:40]!r}, neither visible nor infrared")
    identity, camera = entry.get("identity"), entry.get("camera")
    if not (identity is None or _is_number(identity) or _is_name(identity)):
        raise InputError("identity is neither a whole number nor a name")
    if not (camera is None or _is_number(camera)):
        raise InputError("camera is no whole number")
    identity, camera = (-1 if value is None else value for value in (identity, camera))
    return ListedTracklet(Tracklet(paths, identity, camera, stated, _role(entry)), frames[0])


def _role(entry: dict) -> str:
    """The role of a tracklet, which is "train" in the training split."""
    split = entry.get("split", "test")
    if split not in SPLITS:
        raise InputError(f"split is {str(split)[:40]!r}, neither train nor test")
    if split == "train":
        if entry.get("role", "train") != "train":
            raise InputError("role is for test tracklets, but split is train")
        return "train"
    role = entry.get("role", "both")
    if role not in ROLES:
        raise InputError(f"role is {str(role)[:40]!r}, none of {', '.join(ROLES)}")
    return role


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: object) -> bool:
    return type(value) is int and -LARGEST <= value < LARGEST


def _read_folder(folder: Path, modality: str | None) -> list[ListedTracklet]:
    if modality is None:
        raise InputError(f"{folder}: is a folder: say its modality with --modality")
    folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=_natural_key)
    listed, problems = [], []
    for sub in folders:
        images = (path for path in sub.iterdir() if path.suffix.lower() in IMAGES)
        frames = [str(path) for path in sorted(images, key=_natural_key)]
        if not frames:
            problems.append(f"{sub.name} holds no images")
        listed.append(ListedTracklet(Tracklet(tuple(frames), -1, -1, modality, "both"), sub.name))
    raise_if_any(problems, str(folder))
    if not listed:
        raise InputError(f"{folder}: holds no folder: each tracklet needs one of its own")
    return listed


def _natural_key(path: Path) -> list:
    """A key that sorts F9 before F10."""
    words = re.split(r"(\d+)", path.name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)]

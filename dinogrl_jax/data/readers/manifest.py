"""Tracklets of any origin: a manifest of JSON lines, or a folder with a folder for each tracklet.

A line of a manifest is an object with `frames` (paths relative to the manifest, in order of time)
and `modality`, and with `identity` and `camera` (numbers or names) if they are known: `spelling`
has their rules. For training and tests, `split` is "train" or "test" (the default), and `role` of a
test tracklet is "query", "gallery" or "both" (the default). `time` says when its first frame was
filmed, by which a gallery filters: like 2026-11-28T14:00:00+01:00, or seconds since 1970.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.data.problems import Problem, raise_if_any, raise_or_warn
from dinogrl_jax.data.readers.listing import (
    TO_FRAMES,
    first_video,
    folders_in,
    images_in,
    without_ghosts,
)
from dinogrl_jax.data.readers.spelling import (
    UNKNOWN,
    Spellings,
    camera_of,
    identity_of,
    seconds_since_1970,
)
from dinogrl_jax.data.tracklets import MODALITIES, ROLES, Tracklet
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import open_file
from dinogrl_jax.interface.shapes import json_value
from dinogrl_jax.interface.text import HEAD, content_words, shortened

KEYS = ("frames", "identity", "camera", "modality", "split", "role", "time")
SPLITS = ("train", "test")
EXAMPLE = '{"frames": [...], "modality": "visible"}'
BOM = b"\xef\xbb\xbf"  # with which Windows marks UTF-8
LONGEST_LINE = 16 << 20  # bytes


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
    """The tracklets of the lines that are right; InputError if the file is no manifest at all."""
    listed, identities, cameras = [], Spellings("identity"), Cameras()
    for number, line in _numbered_lines(source):
        try:
            found = _parse_entry(line, source.parent, modality)
            if identified and found.tracklet.identity == UNKNOWN:
                raise InputError("identity is missing")
        except InputError as error:
            problems.append(Problem("line", str(error), str(source), number))
            continue
        listed.append(found)
        tracklet, place = found.tracklet, f"line {number}"
        wrong = (
            [identities.problem(tracklet.identity, place)] if tracklet.identity != UNKNOWN else []
        )
        wrong.append(cameras.problem(tracklet.camera, place))
        problems += [Problem("spelling", text, str(source), number) for text in wrong if text]
    if not listed and not problems:
        raise InputError(f"{source}: lists no tracklets")
    return listed


def listed_times(path: str) -> dict[str, float]:
    """When tracklets began, of the lines of a manifest that say it, by their first frames.

    In seconds since 1970. The manifest is one that `read_tracklets` takes.
    """
    times = {}
    for _, line in _numbered_lines(Path(path)):
        entry = json_value(line.decode("utf-8-sig"))
        if entry.get("time") is not None:
            times[without_ghosts(entry["frames"])[0]] = seconds_since_1970(entry["time"])
    return times


class Cameras(Spellings):
    """The cameras of a file so far, which have all numbers or all names."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.first: tuple[int, str] | None = None

    def problem(self, camera: int, place: str) -> str:
        if camera == UNKNOWN:
            return ""
        self.first = self.first or (camera, place)
        other, where = self.first
        if type(other) is not type(camera):
            both = f"{camera} here and {other} in {where}"
            return f"camera is {both}: give all cameras numbers, or all of them names"
        return super().problem(str(camera), place)


def _numbered_lines(source: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1 on."""
    try:
        with open_file(source) as file:
            if words := _no_manifest(file.read(HEAD)):
                raise InputError(f"{source} is {words}")
            file.seek(0)
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    most = f"{LONGEST_LINE >> 20} MiB"
                    raise InputError(f"{source}: line {number} is longer than {most}")
                if line.removeprefix(BOM).strip():
                    yield number, line
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a file"
        raise InputError(f"{source}: cannot be read ({reason})") from error


def _no_manifest(head: bytes) -> str:
    """What a file is by its first bytes, if it is no manifest; else empty."""
    if head.removeprefix(BOM).lstrip().startswith(b"["):
        return f"one JSON array: write each of its objects on a line of its own, like {EXAMPLE}"
    return content_words(head) if head else ""


def _parse_entry(line: bytes, folder: Path, modality: str | None) -> ListedTracklet:
    try:
        text = line.decode("utf-8-sig")
    except ValueError as error:
        raise InputError(f"is not JSON ({str(error)[:80]})") from error
    entry = json_value(text)
    if not isinstance(entry, dict):
        raise InputError(f"is not an object like {EXAMPLE}")
    if unknown := [key for key in entry if key not in KEYS]:
        raise InputError(f"has the unknown key {shortened(unknown[0])}; there is {', '.join(KEYS)}")
    frames = entry.get("frames")
    if not isinstance(frames, list) or not all(map(_is_name, frames)):
        raise InputError("frames is not a list of paths with at least one")
    frames = without_ghosts(frames)
    if not frames:
        raise InputError("frames is not a list of paths with at least one")
    paths = tuple(_frame_path(folder, frame) for frame in frames)
    stated = entry.get("modality", modality)
    if stated not in MODALITIES:
        raise InputError(f"modality is {str(stated)[:40]!r}, neither visible nor infrared")
    if (time := entry.get("time")) is not None:
        with errors_naming(f"time {shortened(time)}"):
            seconds_since_1970(time)
    identity, camera = identity_of(entry.get("identity")), camera_of(entry.get("camera"))
    return ListedTracklet(Tracklet(paths, identity, camera, stated, _role(entry)), frames[0])


def _frame_path(folder: Path, frame: str) -> str:
    """The path of a frame that a line names; InputError says why there is no such file."""
    path = os.path.join(folder, frame)
    if os.path.isfile(path):
        return path
    named = f"frame {frame[:200]!r}"
    if "\\" in frame:
        raise InputError(f"{named} does not exist: it has Windows' backslashes, write / for each")
    if "\0" not in frame and os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"{named} is no file but a FIFO, a device or a socket")
    raise InputError(f"{named} does not exist")


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


def _read_folder(folder: Path, modality: str | None) -> list[ListedTracklet]:
    folders = folders_in(folder)
    if not folders:
        raise InputError(f"{folder}: holds no folder{_what_instead(folder)}")
    if modality is None:
        raise InputError(f"{folder}: is a folder: say its modality with --modality")
    listed, problems = [], []
    for sub in folders:
        frames = images_in(sub)
        if not frames:
            video = first_video(sub)
            more = f" but the video {shortened(video)}: {TO_FRAMES}" if video else ""
            problems.append(f"{sub.name} holds no images{more}")
        listed.append(ListedTracklet(Tracklet(tuple(frames), -1, -1, modality, "both"), sub.name))
    raise_if_any(problems, str(folder))
    return listed


def _what_instead(folder: Path) -> str:
    """What a folder holds in the place of a folder for each tracklet, and what to do."""
    if images_in(folder):
        return " but frames: each tracklet needs a folder of its own; give the folder above"
    if video := first_video(folder):
        return f" but the video {shortened(video)}: {TO_FRAMES}, a folder for each"
    return ": each tracklet needs one of its own"

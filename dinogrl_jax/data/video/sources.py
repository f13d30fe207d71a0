"""Which videos: of the command line, or of a file with a line of JSON for each."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.data.problems import raise_if_any
from dinogrl_jax.data.readers.manifest import Cameras, listed_times
from dinogrl_jax.data.readers.spelling import camera_of, seconds_since_1970
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_text
from dinogrl_jax.interface.shapes import json_value
from dinogrl_jax.interface.text import shortened

SHAPE = {
    "video": str,
    "tracks?": str,
    "modality": str,
    "camera?": (int, str, type(None)),
    "start?": str,
}
SOURCES = "sources.jsonl"  # beside a manifest: where and when each of its tracklets was filmed
UTC = "utc"  # the clock of times since 1970; "video" is that of times from its first picture on
KEYS = tuple(key.removesuffix("?") for key in SHAPE)


class Source(NamedTuple):
    """A video, and what is known of the camera that filmed it."""

    video: str
    modality: str
    camera: int | str | None = None
    tracks: str = ""  # the file; empty where people are detected
    start: float | None = None  # when its first picture was filmed, in seconds since 1970


def given_sources(
    videos: Sequence[str],
    tracks: Sequence[str],
    modalities: Sequence[str],
    cameras: Sequence[str],
    starts: Sequence[str] = (),
) -> list[Source]:
    """The videos of a command line, the n-th of each option of the n-th video.

    One modality is that of all videos. Raises InputError where numbers do not agree.
    """
    count = len(videos)
    if len(modalities) == 1:
        modalities = [*modalities] * count
    options = {"tracks": tracks, "modality": modalities, "camera": cameras, "start": starts}
    for name, values in options.items():
        if len(values) != count and (values or name == "modality"):
            counts = f"{len(values)} --{name} for {count} --video"
            raise InputError(f"command line: {counts}: say it once for each, in the same order")
    rows = [
        {"video": video} | {name: values[row] for name, values in options.items() if values}
        for row, video in enumerate(videos)
    ]
    return [_source(row, Path()) for row in rows]


def listed_sources(path: str) -> list[Source]:
    """The videos of a file of JSON lines, whose paths are relative to it.

    Raises one InputError for all wrong lines.
    """
    sources, problems = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json_value(line, SHAPE)
            if unknown := [key for key in entry if key not in KEYS]:
                there = ", ".join(KEYS)
                raise InputError(f"has the unknown key {shortened(unknown[0])}; there is {there}")
            sources.append(_source(entry, Path(path).parent))
        except InputError as error:
            problems.append(f"line {number}: {error}")
    raise_if_any(problems, path)
    if not sources:
        raise InputError(f"{path}: lists no videos")
    return sources


def checked_sources(sources: Sequence[Source], detect: bool) -> Sequence[Source]:
    """The same; InputError for a video or a file of tracks that is there twice, or missing tracks.

    detect: people are detected, and no tracks are wanted.
    """
    cameras, seen = Cameras(), {}
    for source in sources:
        if bool(source.tracks) == detect:
            both = "say --tracks or --detect, not both" if detect else "say its --tracks"
            raise InputError(f"{source.video}: {both}")
        for file in filter(None, (source.video, source.tracks)):
            before = seen.setdefault(os.path.realpath(file), source)
            if before is not source:
                other = f", with {before.tracks} and {source.tracks}" * (file == source.video)
                raise InputError(
                    f"{file}: is there twice{other}: give each video once, with one file of tracks"
                )
        if problem := cameras.problem(camera_of(source.camera), f"that of {source.video}"):
            raise InputError(problem)
    return sources


def filming_times(manifest: str) -> dict[str, float]:
    """When tracklets of a manifest began, by their first frames as it writes them.

    In seconds since 1970, where that is known: as the manifest has it, or of those whose video's
    start was given, the file SOURCES beside it, which scripts/tracklets.py writes.

    Raises InputError for lines that are not its.
    """
    file, times = Path(manifest).parent / SOURCES, {}
    if Path(manifest).is_dir():
        return times
    own = listed_times(manifest)
    if not file.is_file():
        return own
    for number, line in enumerate(read_text(file).splitlines(), 1):
        with errors_naming(f"{file}: line {number}"):
            entry = json_value(line, {"path": str, "clock": str, "times": [float]})
        if entry["clock"] == UTC and entry["times"]:
            times[entry["path"]] = float(entry["times"][0])
    return times | own


def _source(entry: dict, folder: Path) -> Source:
    """InputError for a modality, a camera or a time that is none."""
    modality = entry["modality"]
    if modality not in MODALITIES:
        raise InputError(f"modality is {shortened(modality)}, neither visible nor infrared")
    camera = entry.get("camera")
    camera_of(camera)  # raises InputError
    if isinstance(camera, str) and camera.strip().isdecimal():
        camera = int(camera)
    tracks = entry.get("tracks", "")
    tracks = os.path.join(folder, tracks) if tracks else ""
    start = entry.get("start")
    with errors_naming(f"start {shortened(start)}"):
        start = None if start is None else seconds_since_1970(start)
    return Source(os.path.join(folder, entry["video"]), modality, camera, tracks, start)

"""A prepared data set: reading and verifying its shards and their index.

    prepared.json               what it was made from, and the size and checksum of each file
    tracklets.jsonl             a line for each tracklet, with the names of its frames and its shard
    <dataset>-<split>.array_record-…, dataset_info.json, features.json
                                the frames, a record each; tensorflow-datasets reads them too

The frames of a tracklet are consecutive records of one shard.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dinogrl_jax.data.problems import Problem, raise_if_any
from dinogrl_jax.data.readers.lines import discarded_paths
from dinogrl_jax.data.tracklets import Tracklet, long_enough
from dinogrl_jax.interface.errors import InputError

ABOUT_FILE, INDEX_FILE = "prepared.json", "tracklets.jsonl"
FORMAT = 1  # to be raised when older readers cannot read what preparation writes
SETTINGS = ("auxiliary", "fake_infrared")  # those that decide which tracklets a data set has
BLOCK = 1 << 20  # bytes read at a time


class Entry(NamedTuple):
    """A line of the index."""

    split: str
    tracklet: Tracklet  # its frames are named relative to the root of the raw data set
    shard: str  # the file's name
    first: int  # record of the first frame

    def line(self) -> str:
        """The entry as JSON."""
        place = {"split": self.split, "shard": self.shard, "first": self.first}
        return json.dumps(place | self.tracklet._asdict())


def is_prepared(root: str) -> bool:
    return os.path.isfile(os.path.join(root, ABOUT_FILE))


def read_splits(
    config: ConfigDict, problems: list[Problem] | None = None
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets, with the same filters as the raw data set.

    Raises InputError if the folder holds another data set or was prepared with other settings.
    """
    about = read_about(config.root)
    if about["dataset"] != config.dataset:
        raise InputError(f"{config.root} holds data.dataset = {about['dataset']!r}")
    for name in SETTINGS:
        if about["settings"][name] != config[name]:
            raise InputError(
                f"{config.root} was prepared with data.{name} = {about['settings'][name]}: "
                "prepare it again, or change the setting"
            )
    lists = {"train": config.discard_train, "test": config.discard_test}
    sets: dict[str, list[Tracklet]] = {"train": [], "test": []}
    gone = {split: discarded_paths(path, (f"{split.title()}/",)) for split, path in lists.items()}
    used = dict.fromkeys(sets, False)
    for entry in index_entries(config.root):
        kept = kept_frame_indices(entry, gone[entry.split])
        used[entry.split] |= len(kept) < len(entry.tracklet.frames)
        start = os.path.join(config.root, entry.shard)
        frames = tuple(f"{start}#{entry.first + index}" for index in kept)
        sets[entry.split].append(entry.tracklet._replace(frames=frames))
    for split, path in lists.items():
        if path and not used[split]:
            raise InputError(f"{path}: no line names a {split} frame of {config.root}")
    left_out: list[Problem] = []
    train, test = (long_enough(split, config.minimum_frames, left_out) for split in sets.values())
    if problems is not None:
        problems += left_out
    return train, test


def read_about(root: str) -> dict[str, Any]:
    """The content of prepared.json; InputError if it is damaged or of another version."""
    path = os.path.join(root, ABOUT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        version = about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): prepare the data set again") from error
    if version != FORMAT:
        raise InputError(f"{path} is of format {version}, not {FORMAT}: prepare it again")
    return about


def index_entries(root: str) -> Iterator[Entry]:
    """The entries of the index; InputError names a damaged line."""
    path = os.path.join(root, INDEX_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield parse_entry(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}:{number}: is damaged ({error!r})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def parse_entry(fields: dict[str, Any]) -> Entry:
    split, shard, first = (fields.pop(name) for name in ("split", "shard", "first"))
    tracklet = Tracklet(**fields)
    return Entry(split, tracklet._replace(frames=tuple(tracklet.frames)), shard, first)


def kept_frame_indices(entry: Entry, gone: set[str]) -> list[int]:
    """The indices of the frames of a tracklet that the discard list does not name."""
    names = entry.tracklet.frames
    if not gone:
        return list(range(len(names)))
    below = [name.removeprefix("data/").removeprefix(f"{entry.split.title()}/") for name in names]
    return [index for index, name in enumerate(below) if name not in gone]


def verify(root: str) -> int:
    """The number of files, after all their sizes and checksums were found right.

    Raises InputError that names every file that is missing or differs.
    """
    files, problems = read_about(root)["files"], []
    for name, expected in files.items():
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            problems.append(f"{name} is missing")
        elif os.path.getsize(path) != expected["bytes"]:
            problems.append(f"{name} has {os.path.getsize(path)} bytes, not {expected['bytes']}")
        elif checksum(path) != expected["sha256"]:
            problems.append(f"{name} has another checksum: its content has changed")
    raise_if_any(problems, root)
    return len(files)


def checksum(path: str) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_facts(path: str) -> dict[str, Any]:
    """The size and the checksum of a file, as prepared.json stores them."""
    return {"bytes": os.path.getsize(path), "sha256": checksum(path)}

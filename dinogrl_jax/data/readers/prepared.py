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
from typing import Any

from ml_collections import ConfigDict

from dinogrl_jax.data.problems import Problem, raise_if_any
from dinogrl_jax.data.readers.lines import discarded_paths
from dinogrl_jax.data.tracklets import Tracklet, long_enough
from dinogrl_jax.interface.errors import InputError

ABOUT_FILE, INDEX_FILE = "prepared.json", "tracklets.jsonl"
FORMAT = 1  # to be raised when older readers cannot read what preparation writes
SETTINGS = ("auxiliary", "fake_infrared")  # those that decide which tracklets a data set has


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
    for split, tracklet, shard, first in index_entries(config.root):
        names = tracklet.frames
        below = (name.removeprefix("data/").removeprefix(f"{split.title()}/") for name in names)
        kept = [record for record, name in enumerate(below, first) if name not in gone[split]]
        used[split] |= len(kept) < len(names)
        start = os.path.join(config.root, shard)
        frames = tuple(f"{start}#{record}" for record in kept)
        sets[split].append(tracklet._replace(frames=frames))
    for split, path in lists.items():
        if path and not used[split]:
            raise InputError(f"{path}: no line names a {split} frame of {config.root}")
    left_out = [] if problems is None else problems
    train, test = (long_enough(split, config.minimum_frames, left_out) for split in sets.values())
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


def index_line(split: str, tracklet: Tracklet, shard: str, first: int) -> str:
    """A line of the index as JSON.

    Frames are named relative to the root of the raw data set; `first` is the record of the first.
    """
    return json.dumps({"split": split, "shard": shard, "first": first} | tracklet._asdict())


def index_entries(root: str) -> Iterator[tuple[str, Tracklet, str, int]]:
    """The arguments of `index_line` for each line; InputError names a damaged one."""
    path = os.path.join(root, INDEX_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    fields = json.loads(line)
                    split, shard, first = map(fields.pop, ("split", "shard", "first"))
                    names = tuple(fields.pop("frames"))
                    yield split, Tracklet(names, **fields), shard, first
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}:{number}: is damaged ({error!r})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def verify(root: str) -> int:
    """The number of files, after all their sizes and checksums were found right.

    Raises InputError that names every file that is missing or differs.
    """
    files, problems = read_about(root)["files"], []
    for name, expected in files.items():
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            problems.append(f"{name} is missing")
        elif (found := file_facts(path))["bytes"] != expected["bytes"]:
            problems.append(f"{name} has {found['bytes']} bytes, not {expected['bytes']}")
        elif found["sha256"] != expected["sha256"]:
            problems.append(f"{name} has another checksum: its content has changed")
    raise_if_any(problems, root)
    return len(files)


def file_facts(path: str) -> dict[str, Any]:
    """The size and the checksum of a file, as prepared.json stores them."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"bytes": os.path.getsize(path), "sha256": digest.hexdigest()}

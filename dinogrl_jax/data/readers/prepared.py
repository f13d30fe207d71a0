"""A prepared data set: reading and verifying its shards and their index.

    prepared.json               what it was made from, and the size and checksum of each file
    tracklets.jsonl             a line for each tracklet, with the names of its frames and its shard
    <dataset>-<split>.array_record-…, dataset_info.json, features.json
                                the frames, a record each; tensorflow-datasets reads them too

The frames of a tracklet are consecutive records of one shard.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from dinogrl_jax.data.problems import Problem, raise_if_any
from dinogrl_jax.data.readers.lines import discarded_paths
from dinogrl_jax.data.readers.spelling import LARGEST_CAMERA
from dinogrl_jax.data.tracklets import MODALITIES, ROLES, Tracklet, long_enough
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import read_bytes, read_json
from dinogrl_jax.interface.shapes import json_value

ABOUT_FILE, INDEX_FILE = "prepared.json", "tracklets.jsonl"
FORMAT = 1  # to be raised when older readers cannot read what preparation writes
SETTINGS = ("auxiliary", "fake_infrared")  # those that decide which tracklets a data set has
FACTS = {"bytes": int, "sha256": str, "frames?": int}  # of a file
ABOUT = {
    "dataset": str,
    "settings": dict.fromkeys(SETTINGS, bool),
    "encoding": {"kind": str, "exif_rotation?": bool},
    "files": {...: FACTS},
}
LINE = {
    **{"split": str, "shard": str, "first": int, "frames": [str], "identity": (int, str)},
    **{"camera": int, "modality": str, "role": str, "pair": int},
}
LARGEST_INDEX = 1 << 30  # bytes


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
    encoding, turned = about["encoding"], config.exif_rotation
    if encoding["kind"] != "original" and encoding.get("exif_rotation", False) != turned:
        raise InputError(
            f"{config.root} was encoded with data.exif_rotation = {not turned}: "
            "prepare it again, or change the setting"
        )
    lists = {"train": config.discard_train, "test": config.discard_test}
    sets: dict[str, list[Tracklet]] = {"train": [], "test": []}
    counts: dict[str, list[int]] = {"train": [], "test": []}
    gone = {split: discarded_paths(path, (f"{split.title()}/",)) for split, path in lists.items()}
    used = dict.fromkeys(sets, False)
    for split, tracklet, shard, first in index_entries(config.root, about["files"]):
        names = tracklet.frames
        below = (name.removeprefix("data/").removeprefix(f"{split.title()}/") for name in names)
        kept = [record for record, name in enumerate(below) if name not in gone[split]]
        used[split] |= len(kept) < len(names)
        start = os.path.join(config.root, shard)
        frames = tuple(f"{start}#{first + record}" for record in kept)
        name = names[kept[0]] if kept else ""
        sets[split].append(tracklet._replace(frames=frames, name=name))
        counts[split].append(len(names))
    for split, path in lists.items():
        if path and not used[split]:
            raise InputError(f"{path}: no line names a {split} frame of {config.root}")
    left_out = [] if problems is None else problems
    train, test = (
        long_enough(found, config.minimum_frames, left_out, counts[split])
        for split, found in sets.items()
    )
    return train, test


def read_about(root: str) -> dict[str, Any]:
    """The content of prepared.json; InputError if it is damaged or of another version."""
    path = os.path.join(root, ABOUT_FILE)
    with errors_naming_cure("prepare the data set again"):
        version = read_json(path, {"format": int})["format"]
        if version == FORMAT:
            return read_json(path, ABOUT)
    raise InputError(f"{path} is of format {version}, not {FORMAT}: prepare it again")


@contextlib.contextmanager
def errors_naming_cure(cure: str) -> Iterator[None]:
    """InputErrors of the block end with what to do."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}: {cure}") from error


def index_line(split: str, tracklet: Tracklet, shard: str, first: int) -> str:
    """A line of the index as JSON.

    Frames are named relative to the root of the raw data set; `first` is the record of the first.
    """
    fields = {"split": split, "shard": shard, "first": first} | tracklet._asdict()
    del fields["name"]  # the frames have it
    return json.dumps(fields)


def index_entries(
    root: str, files: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Tracklet, str, int]]:
    """The arguments of `index_line` for each line.

    files: the facts of all files, from prepared.json.

    Raises InputError for a damaged line, which it names, and at the end for another checksum.
    """
    path = os.path.join(root, INDEX_FILE)
    content = read_bytes(path, LARGEST_INDEX)
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            yield index_entry(line, files)
        except (InputError, ValueError) as error:
            raise InputError(f"{path}:{number}: is damaged ({error})") from error
    if hashlib.sha256(content).hexdigest() != files.get(INDEX_FILE, {}).get("sha256"):
        text = "is not what was written, by its checksum: prepare the data set again"
        raise InputError(f"{path} {text}")


def index_entry(line: bytes, files: dict[str, dict[str, Any]]) -> tuple[str, Tracklet, str, int]:
    """What a line of the index says; InputError or ValueError if that is damaged."""
    fields = json_value(line.decode(), LINE)
    if unknown := fields.keys() - LINE.keys():
        raise InputError(f"unknown key {min(unknown)!r}")
    split, shard, first = map(fields.pop, ("split", "shard", "first"))
    tracklet = Tracklet(tuple(fields.pop("frames")), **fields)
    records = files.get(shard, {}).get("frames", 0)
    roles = {"train": ("train",), "test": ROLES}.get(split, ())
    if tracklet.modality not in MODALITIES or tracklet.role not in roles:
        raise InputError("its split, role or modality is none")
    if first < 0 or not tracklet.frames or first + len(tracklet.frames) > records:
        raise InputError("its frames are not in its shard")
    if not -LARGEST_CAMERA <= tracklet.camera < LARGEST_CAMERA:
        raise InputError("its camera is none")
    return split, tracklet, shard, first


def verify(root: str) -> int:
    """The number of files, after all their sizes and checksums were found right.

    Raises InputError that names every file that is missing or differs.
    """
    files, problems = read_about(root)["files"], []
    for name, expected in files.items():
        path = os.path.join(root, name)
        if os.path.basename(name) != name:
            problems.append(f"{name!r} is no name of a file in it")
        elif not os.path.isfile(path):
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

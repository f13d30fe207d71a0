"""BUPTCampus: a line of a list is a tracklet, and data_paths.json names its frames.

    <root>/DATA/<identity>/{RGB,IR,FakeIR}/<camera>/<identity>_<RGB|IR>_<camera>_<track>_<frame>.jpg
    <root>/data_paths.json                            identity → modality → camera → track → paths
    <root>/{train,query,gallery,train_auxiliary}.txt  identity modality camera track

The root may be DATA itself, and the lists may lie in <root>/inversing_bu/{json,txt}. The modality
RGB/IR means a pair of tracklets that were filmed at once: their frames show the same instants.

Source: github.com/dyhBUPT/BUPTCampus and the readers of AuxNet, VLD, M3-ReID, DinoGRL.
"""

import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dinogrl_jax.data.problems import Problem, raise_or_warn
from dinogrl_jax.data.readers.lines import parsed_lines
from dinogrl_jax.data.readers.listing import without_ghosts
from dinogrl_jax.data.readers.spelling import checked_name
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import file_words, read_json

PATHS_FILE = "data_paths.json"
MOST_PATHS = 1 << 30  # bytes of that file
AUXILIARY_FILE = "train_auxiliary.txt"
MODALITY = {"RGB": "visible", "IR": "infrared"}
PAIR = "RGB/IR"
CAMERA_NUMBER = {"LS3": 0, "G25": 1, "CQ1": 2, "W4": 3, "TSG1": 4, "TSG2": 5}
FAKE_FOLDER = "FakeIR"
LIST_FOLDERS = ("", "inversing_bu", "inversing_bu/json", "inversing_bu/txt")  # of the lists


class Line(NamedTuple):
    """A line of a list: one tracklet, or a pair of them."""

    identity: str
    camera: str
    frames: dict[str, list[str]]  # RGB, IR or both → paths below the folder of the frames


def read_splits(
    root: str,
    *,
    auxiliary: bool = False,
    fake_infrared: bool = False,
    problems: list[Problem] | None = None,
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets in the order of their lines; of a pair, visible first.

    Args:
        root: the data set's folder, or the folder DATA in it.
        auxiliary: also train on the identities of train_auxiliary.txt, which one camera saw.
        fake_infrared: add an infrared tracklet for each visible training tracklet, of the
            pictures that the authors generated from it.
        problems: collects wrong lines, which are then left out instead of refused.

    Identities are text, so that labels follow the order of the published classifiers. Queries come
    before the gallery in the test set. No frame is opened.

    Raises:
        InputError: a folder or file is missing, or lines are wrong; it names all of them.
    """
    folder, files = find_layout(root, auxiliary)
    paths = read_json(files[PATHS_FILE], {}, MOST_PATHS)
    found: list[Problem] = []
    pairs = itertools.count()

    def listed(name: str, role: str) -> list[Tracklet]:
        return [*list_tracklets(files[name], role, folder, paths, pairs, found)]

    train = listed("train.txt", "train") + (listed(AUXILIARY_FILE, "train") if auxiliary else [])
    test = listed("query.txt", "query") + listed("gallery.txt", "gallery")
    if fake_infrared:
        train += [fake_infrared_tracklet(one) for one in train if one.modality == "visible"]
    raise_or_warn(found, os.path.dirname(files["train.txt"]), problems)
    return train, test


def find_layout(root: str, auxiliary: bool) -> tuple[str, dict[str, str]]:
    """The folder of the identities' folders, and the path of each file; InputError if missing."""
    advice = "set data.root to the folder that holds DATA/ and data_paths.json"
    if not os.path.isdir(root):
        packed = f" but {kind}" if (kind := file_words(root)) else ""
        raise InputError(f"data.root = {root!r} is not a folder{packed}: {advice}")
    root = os.path.normpath(root)
    bases = [root, os.path.dirname(os.path.abspath(root))]  # the second one if the root is DATA
    names = [PATHS_FILE, "train.txt", "query.txt", "gallery.txt", *[AUXILIARY_FILE] * auxiliary]
    files = {
        name: os.path.normpath(path)
        for name, base, place in itertools.product(names, bases[::-1], LIST_FOLDERS[::-1])
        if os.path.isfile(path := os.path.join(base, place, name))
    }
    if missing := [name for name in names if name not in files]:
        raise InputError(f"no {', '.join(missing)} in {root} or its inversing_bu/: {advice}")
    for folder in (os.path.join(root, "DATA"), root):
        if any(path.name.isdigit() for path in Path(folder).glob("*")):
            return folder, files
    raise InputError(f"no folders like DATA/1/ in {root}: {advice}")


def list_tracklets(
    path: str,
    role: str,
    folder: str,
    paths: dict[str, Any],
    pairs: Iterator[int],
    problems: list[Problem],
) -> Iterator[Tracklet]:
    """The tracklets of a list. Unequal pairs and frames named after others are not fatal."""
    parse = functools.partial(parse_line, paths=paths)
    for number, line in parsed_lines(path, parse, problems, "row"):
        if line is None:
            continue
        problems += [Problem(*text, path, number, fatal=False) for text in line_warnings(line)]
        pair, camera = next(pairs) if len(line.frames) > 1 else -1, CAMERA_NUMBER[line.camera]
        for modality, names in line.frames.items():
            frames = tuple(f"{folder}/{name}" for name in names)
            yield Tracklet(frames, line.identity, camera, MODALITY[modality], role, pair)


def parse_line(text: str, paths: dict[str, Any]) -> Line:
    fields = text.replace(",", " ").split()
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} words, not 4 (identity modality camera track)")
    identity, modality, camera, track = fields
    checked_name("identity", identity)
    if modality not in (*MODALITY, PAIR):
        raise ValueError(f"modality {modality[:40]!r} is none of {', '.join([*MODALITY, PAIR])}")
    if camera not in CAMERA_NUMBER:
        raise ValueError(f"camera {camera[:40]!r} is none of {', '.join(CAMERA_NUMBER)}")
    frames = {m: frame_paths(paths, (identity, m, camera, track)) for m in modality.split("/")}
    return Line(identity, camera, frames)


def frame_paths(paths: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    found: Any = paths
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise ValueError(f"{PATHS_FILE} has no tracklet {' '.join(keys)[:80]}")
    found = without_ghosts(found)
    if not found:
        raise ValueError(f"{PATHS_FILE} has no frames of tracklet {' '.join(keys)}")
    return found


def line_warnings(line: Line) -> Iterator[tuple[str, str]]:
    for modality, frames in line.frames.items():
        folder = f"{line.identity}/{modality}/{line.camera}/"
        name = f"{line.identity}_{modality}_{line.camera}_"
        if foreign := [path for path in frames if not path.startswith(folder + name)]:
            yield "frames of others", f"a tracklet in {folder} has {foreign[0]}"
    counts = [str(len(frames)) for frames in line.frames.values()]
    if len(set(counts)) > 1:
        text = f"{' and '.join(counts)} frames of one pair: each instant should have both"
        yield "unequal pair", text


def fake_infrared_tracklet(tracklet: Tracklet) -> Tracklet:
    """The infrared tracklet that was generated from a visible one; it belongs to no pair."""
    parts = (frame.rpartition("/RGB/") for frame in tracklet.frames)
    frames = tuple(f"{start}/{FAKE_FOLDER}/{rest}" for start, _, rest in parts)
    return tracklet._replace(frames=frames, modality="infrared", pair=-1)

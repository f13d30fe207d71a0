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
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from dinogrl_jax.data.problems import Problem, raise_or_warn
from dinogrl_jax.data.readers.lines import parsed_lines
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError

PATHS_FILE = "data_paths.json"
LIST_FILES = {"train": "train.txt", "query": "query.txt", "gallery": "gallery.txt"}
AUXILIARY_FILE = "train_auxiliary.txt"
MODALITY = {"RGB": "visible", "IR": "infrared"}
PAIR = "RGB/IR"
CAMERA_NUMBER = {"LS3": 0, "G25": 1, "CQ1": 2, "W4": 3, "TSG1": 4, "TSG2": 5}
FAKE_FOLDER = "FakeIR"
LIST_FOLDERS = ("", "inversing_bu", "inversing_bu/json", "inversing_bu/txt")  # of the lists


class Layout(NamedTuple):
    frames: str  # folder of the identities' folders
    files: dict[str, str]  # name of a list → its path


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
    layout = find_layout(root, auxiliary)
    paths = read_json_object(layout.files[PATHS_FILE])
    found: list[Problem] = []
    pairs = itertools.count()
    lists = ["train.txt", AUXILIARY_FILE] if auxiliary else ["train.txt"]
    train: list[Tracklet] = []
    for name in lists:
        for line in list_lines(layout.files[name], paths, found):
            train += line_tracklets(line, "train", layout.frames, pairs)
    test: list[Tracklet] = []
    for role in ("query", "gallery"):
        for line in list_lines(layout.files[LIST_FILES[role]], paths, found):
            test += line_tracklets(line, role, layout.frames, pairs)
    if fake_infrared:
        train += [
            fake_infrared_tracklet(tracklet) for tracklet in train if tracklet.modality == "visible"
        ]
    if problems is None:
        raise_or_warn(found, os.path.dirname(layout.files["train.txt"]))
    else:
        problems += found
    return train, test


def find_layout(root: str, auxiliary: bool) -> Layout:
    """The folders and files of the data set; InputError if one is missing."""
    advice = "set data.root to the folder that holds DATA/ and data_paths.json"
    if not os.path.isdir(root):
        raise InputError(f"data.root = {root!r} is not a folder: {advice}")
    root = os.path.normpath(root)
    bases = [root, os.path.dirname(os.path.abspath(root))]  # the second one if the root is DATA
    names = [PATHS_FILE, *LIST_FILES.values(), *([AUXILIARY_FILE] if auxiliary else [])]
    files = {
        name: os.path.normpath(path)
        for name, base, place in itertools.product(names, bases[::-1], LIST_FOLDERS[::-1])
        if os.path.isfile(path := os.path.join(base, place, name))
    }
    if missing := [name for name in names if name not in files]:
        raise InputError(f"no {', '.join(missing)} in {root} or its inversing_bu/: {advice}")
    for frames in (os.path.join(root, "DATA"), root):
        if os.path.isdir(frames) and any(name.isdigit() for name in os.listdir(frames)):
            return Layout(frames, files)
    raise InputError(f"no folders like DATA/1/ in {root}: {advice}")


def read_json_object(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {str(error)[:80]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not an object of identities")
    return content


def list_lines(path: str, paths: dict[str, Any], problems: list[Problem]) -> list[Line]:
    """The lines of a list. Frames named after others and unequal pairs are problems, not fatal."""
    parse = functools.partial(parse_line, paths=paths)
    good = []
    for number, line in parsed_lines(path, parse, problems, "row"):
        if line:
            problems += [
                Problem(kind, text, path, number, False) for kind, text in line_warnings(line)
            ]
            good.append(line)
    return good


def parse_line(text: str, paths: dict[str, Any]) -> Line:
    fields = text.replace(",", " ").split()
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} words, not 4 (identity modality camera track)")
    identity, modality, camera, track = fields
    if modality not in (*MODALITY, PAIR):
        raise ValueError(f"modality {modality[:40]!r} is none of {', '.join([*MODALITY, PAIR])}")
    if camera not in CAMERA_NUMBER:
        raise ValueError(f"camera {camera[:40]!r} is none of {', '.join(CAMERA_NUMBER)}")
    return Line(
        identity,
        camera,
        {m: frame_paths(paths, (identity, m, camera, track)) for m in modality.split("/")},
    )


def frame_paths(paths: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    found: Any = paths
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise ValueError(f"{PATHS_FILE} has no tracklet {' '.join(keys)[:80]}")
    if not found:
        raise ValueError(f"{PATHS_FILE} has no frames of tracklet {' '.join(keys)}")
    return found


def line_warnings(line: Line) -> Iterator[tuple[str, str]]:
    for modality, frames in line.frames.items():
        folder = f"{line.identity}/{modality}/{line.camera}/"
        name = f"{line.identity}_{modality}_{line.camera}_"
        if foreign := [path for path in frames if not path.startswith(folder + name)]:
            yield "frames of others", f"a tracklet in {folder} has {foreign[0]}"
    if len({len(frames) for frames in line.frames.values()}) > 1:
        counts = " and ".join(str(len(frames)) for frames in line.frames.values())
        yield "unequal pair", f"{counts} frames of one pair: each instant should have both"


def line_tracklets(line: Line, role: str, folder: str, pairs: Iterator[int]) -> Iterator[Tracklet]:
    pair = next(pairs) if len(line.frames) > 1 else -1
    for modality, paths in line.frames.items():
        frames = tuple(f"{folder}/{path}" for path in paths)
        camera = CAMERA_NUMBER[line.camera]
        yield Tracklet(frames, line.identity, camera, MODALITY[modality], role, pair)


def fake_infrared_tracklet(tracklet: Tracklet) -> Tracklet:
    """The infrared tracklet that was generated from a visible one; it belongs to no pair."""
    frames = (frame.rpartition("/RGB/") for frame in tracklet.frames)
    names = tuple(f"{start}/{FAKE_FOLDER}/{rest}" for start, _, rest in frames)
    return tracklet._replace(frames=names, modality="infrared", pair=-1)

"""BUPTCampus's tracklets: the lines of its lists, whose frames data_paths.json names.

    <root>/DATA/<identity>/{RGB,IR,FakeIR}/<camera>/<identity>_<RGB|IR>_<camera>_<track>_<frame>.jpg
    <root>/data_paths.json                            identity → modality → camera → track → paths
    <root>/{train,query,gallery,train_auxiliary}.txt  identity modality camera track

The root may be DATA itself, and the lists may lie in <root>/inversing_bu/{json,txt}. A modality
RGB/IR stands for a pair of tracklets filmed at once: frame by frame they show the same instant.

Source: github.com/dyhBUPT/BUPTCampus and the readers of AuxNet, VLD, M3-ReID, DinoGRL.
"""

import functools
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from dinogrl_jax.data.problems import Problem, settle
from dinogrl_jax.data.readers.lines import parsed
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError

PATHS = "data_paths.json"
LISTS = {"train": "train.txt", "query": "query.txt", "gallery": "gallery.txt"}
AUXILIARY = "train_auxiliary.txt"
MODALITY = {"RGB": "visible", "IR": "infrared"}
PAIR = "RGB/IR"
CAMERA = {"LS3": 0, "G25": 1, "CQ1": 2, "W4": 3, "TSG1": 4, "TSG2": 5}
FAKE = "FakeIR"
PLACES = ("", "inversing_bu", "inversing_bu/json", "inversing_bu/txt")  # of the lists


class Layout(NamedTuple):
    frames: str  # folder of the identities' folders
    files: dict[str, str]  # name of a list → its path


class Line(NamedTuple):
    """A list's line: one tracklet, or a pair of them."""

    identity: str
    camera: str
    frames: dict[str, list[str]]  # RGB or IR, or both → paths below the frames' folder


def read(
    root: str,
    *,
    auxiliary: bool = False,
    fake_infrared: bool = False,
    problems: list[Problem] | None = None,
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets, in the order of their lines, pairs visible first.

    Args:
        root: the data set's folder, or the folder DATA in it.
        auxiliary: train on the identities of train_auxiliary.txt, of one camera each, as well.
        fake_infrared: give each visible training tracklet an infrared one beside it, of the
            pictures that the authors made from it.
        problems: collects wrong lines, which are then left out instead of refused.

    Identities are text, so that their labels are in the order of the published classifiers. The
    test holds the queries, then the gallery. The frames themselves are not looked at.

    Raises:
        InputError: a folder or file is missing, or lines are wrong: all at once.
    """
    layout = find(root, auxiliary)
    paths = json_object(layout.files[PATHS])
    found: list[Problem] = []
    pairs = itertools.count()
    lists = ["train.txt", AUXILIARY] if auxiliary else ["train.txt"]
    train: list[Tracklet] = []
    for name in lists:
        for line in lines(layout.files[name], paths, found):
            train += tracklets_of(line, "train", layout.frames, pairs)
    test: list[Tracklet] = []
    for role in ("query", "gallery"):
        for line in lines(layout.files[LISTS[role]], paths, found):
            test += tracklets_of(line, role, layout.frames, pairs)
    if fake_infrared:
        train += [fake(tracklet) for tracklet in train if tracklet.modality == "visible"]
    if problems is None:
        settle(found, os.path.dirname(layout.files["train.txt"]))
    else:
        problems += found
    return train, test


def find(root: str, auxiliary: bool) -> Layout:
    """Where the frames and the lists are."""
    advice = "set data.root to the folder that holds DATA/ and data_paths.json"
    if not os.path.isdir(root):
        raise InputError(f"data.root = {root!r} is not a folder: {advice}")
    root = os.path.normpath(root)
    bases = [root, os.path.dirname(os.path.abspath(root))]  # the second where the root is DATA
    names = [PATHS, *LISTS.values(), *([AUXILIARY] if auxiliary else [])]
    files = {
        name: os.path.normpath(path)
        for name, base, place in itertools.product(names, bases[::-1], PLACES[::-1])
        if os.path.isfile(path := os.path.join(base, place, name))
    }
    if missing := [name for name in names if name not in files]:
        raise InputError(f"no {', '.join(missing)} in {root} or its inversing_bu/: {advice}")
    for frames in (os.path.join(root, "DATA"), root):
        if os.path.isdir(frames) and any(name.isdigit() for name in os.listdir(frames)):
            return Layout(frames, files)
    raise InputError(f"no folders like DATA/1/ in {root}: {advice}")


def json_object(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {str(error)[:80]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not an object of identities")
    return content


def lines(path: str, paths: dict[str, Any], problems: list[Problem]) -> list[Line]:
    """A list's lines; frames that bear another owner's name, or unequal pairs, are not fatal."""
    parse = functools.partial(line_of, paths=paths)
    good = []
    for number, line in parsed(path, parse, problems, "row"):
        if line:
            problems += [Problem(kind, text, path, number, False) for kind, text in doubts(line)]
            good.append(line)
    return good


def line_of(text: str, paths: dict[str, Any]) -> Line:
    fields = text.replace(",", " ").split()
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} words, not 4 (identity modality camera track)")
    identity, modality, camera, track = fields
    if modality not in (*MODALITY, PAIR):
        raise ValueError(f"modality {modality[:40]!r} is none of {', '.join([*MODALITY, PAIR])}")
    if camera not in CAMERA:
        raise ValueError(f"camera {camera[:40]!r} is none of {', '.join(CAMERA)}")
    return Line(
        identity,
        camera,
        {m: frames_of(paths, (identity, m, camera, track)) for m in modality.split("/")},
    )


def frames_of(paths: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    found: Any = paths
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise ValueError(f"{PATHS} has no tracklet {' '.join(keys)[:80]}")
    if not found:
        raise ValueError(f"{PATHS} has no frames of tracklet {' '.join(keys)}")
    return found


def doubts(line: Line) -> Iterator[tuple[str, str]]:
    for modality, frames in line.frames.items():
        folder = f"{line.identity}/{modality}/{line.camera}/"
        name = f"{line.identity}_{modality}_{line.camera}_"
        if foreign := [path for path in frames if not path.startswith(folder + name)]:
            yield "frames of others", f"a tracklet in {folder} has {foreign[0]}"
    if len({len(frames) for frames in line.frames.values()}) > 1:
        counts = " and ".join(str(len(frames)) for frames in line.frames.values())
        yield "unequal pair", f"{counts} frames of one pair: each instant should have both"


def tracklets_of(line: Line, role: str, folder: str, pairs: Iterator[int]) -> Iterator[Tracklet]:
    pair = next(pairs) if len(line.frames) > 1 else -1
    for modality, paths in line.frames.items():
        frames = tuple(f"{folder}/{path}" for path in paths)
        camera = CAMERA[line.camera]
        yield Tracklet(frames, line.identity, camera, MODALITY[modality], role, pair)


def fake(tracklet: Tracklet) -> Tracklet:
    """The infrared tracklet that was made from a visible one; it belongs to no pair."""
    frames = (frame.rpartition("/RGB/") for frame in tracklet.frames)
    names = tuple(f"{start}/{FAKE}/{rest}" for start, _, rest in frames)
    return tracklet._replace(frames=names, modality="infrared", pair=-1)

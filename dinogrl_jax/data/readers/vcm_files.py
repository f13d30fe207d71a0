"""HITSZ-VCM on disk: its files, and the lines of its info files.

    <root>/{Train,Test}/<identity>/{ir,rgb}/D<camera>/<frame>.jpg    layout A
    <root>/<identity>/{ir,rgb}/D<camera>/<frame>.jpg                 layout B
    <root>/info/{train,test}_name.txt          0001M2D3T1F6.jpg
    <root>/info/track_{train,test}_info.txt    modality start end identity camera
    <root>/info/query_IDX.txt                  rows of track_test_info.txt

Layout C is layout B with the info files beside the identities. All may also lie in <root>/data.
Tracks of the same identity, modality and camera share a folder, so a track is a range of names.

Source: github.com/VCM-project233/HITSZ-VCM-data and the readers of MITML, VLD, DinoGRL.
"""

import functools
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from dinogrl_jax.data.problems import Problem, enumeration
from dinogrl_jax.data.readers.lines import integers, parsed_lines
from dinogrl_jax.interface.errors import InputError

NAME_FILES = {"train": "train_name.txt", "test": "test_name.txt"}
ROW_FILES = {"train": "track_train_info.txt", "test": "track_test_info.txt"}
QUERY_FILE = "query_IDX.txt"
MODALITY = {1: "infrared", 2: "visible"}
MODALITY_FOLDER = {1: "ir", 2: "rgb"}
NAME = re.compile(r"(\d+)M(\d+)D(\d+)T\d+F(\d+\.\w+)", re.ASCII)
CAMERAS = 12

# share of the rows that may have some frames of others; the real data set is said to have 0.4 %
MAX_MIXED_ROWS = 0.01


class Layout(NamedTuple):
    letter: str  # "A", "B" or "C"
    info: str  # folder of the info files
    frames: dict[str, str]  # split → folder that holds the identities' folders

    def file(self, name: str) -> str:
        return os.path.join(self.info, name)


class Owner(NamedTuple):
    """Whom a name or a row says that frames show, and by which camera."""

    identity: int
    modality: str
    camera: int


class Frame(NamedTuple):
    owner: Owner
    path: str  # below the split's folder


class Row(NamedTuple):
    owner: Owner
    frames: Sequence[Frame | None]  # None where the name is wrong

    @property
    def foreign(self) -> list[Frame]:
        """The frames whose names say another owner than the row."""
        return [frame for frame in self.frames if frame and frame.owner != self.owner]


Rows = list[tuple[int, Row | None]]  # with the number of the line; None where the line is wrong


def find_layout(root: str) -> Layout:
    """The layout of a data set and its folders; InputError if a file or folder is missing."""
    advice = "set data.root to the folder that holds info/, Train/ and Test/"
    root = os.path.normpath(root) if root else root
    if not os.path.isdir(root):
        raise InputError(f"data.root = {root!r} is not a folder: {advice}")
    bases = [root, os.path.join(root, "data")]
    candidates = [f"{base}{info}" for base in bases for info in ("/info", "/Info", "")]
    files = [*NAME_FILES.values(), *ROW_FILES.values(), QUERY_FILE]
    info = max(candidates, key=lambda folder: sum(is_file(folder, name) for name in files))
    if missing := [name for name in files if not is_file(info, name)]:
        where = f"{root} or its info/, Info/ or data/" if len(missing) == len(files) else info
        raise InputError(f"no {', '.join(missing)} in {where}: {advice}")
    for base in bases:
        split_roots = {split: os.path.join(base, split.title()) for split in ("train", "test")}
        if any(os.path.isdir(folder) for folder in split_roots.values()):
            return Layout("A", info, split_roots)
    for base in bases:
        if any(name.isdigit() for name in subfolder_names(base)):
            letter = "C" if info == base else "B"
            return Layout(letter, info, {"train": base, "test": base})
    raise InputError(f"neither Train/ and Test/ nor folders like 0001/ in {root}: {advice}")


def is_file(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))


def subfolder_names(folder: str) -> list[str]:
    """The names of the folders in a folder; none if there is no such folder."""
    if not os.path.isdir(folder):
        return []
    # os.scandir would not do: its is_dir() raises at a symbolic link to itself.
    return [name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))]


def checked_owner(identity: int, modality: int, camera: int) -> Owner:
    if modality not in MODALITY:
        raise ValueError(f"modality {modality} is neither 1 (infrared) nor 2 (visible)")
    if camera < 1:
        raise ValueError(f"camera {camera} is not a camera's number: they start at 1")
    return Owner(identity, MODALITY[modality], camera)


class FrameParser:
    """Parses names; frames of one folder share their owner and its path, which saves memory."""

    def __init__(self):
        self.folders: dict[tuple[str, ...], tuple[Owner, str]] = {}

    def __call__(self, name: str) -> Frame:
        match = NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name[:40]!r} is not a name like 0001M2D3T1F6.jpg")
        *key, file = match.groups()
        key = tuple(key)
        if key not in self.folders:
            identity, modality, camera = map(int, key)
            found = checked_owner(identity, modality, camera)
            self.folders[key] = found, f"{key[0]}/{MODALITY_FOLDER[modality]}/D{key[2]}/"
        found, folder = self.folders[key]
        return Frame(found, folder + file)


def read_rows(layout: Layout, split: str, problems: list[Problem]) -> Rows:
    """The rows of a split; a few rows with some frames of others are not a fatal problem."""
    parse = FrameParser()
    names = [
        frame for _, frame in parsed_lines(layout.file(NAME_FILES[split]), parse, problems, "name")
    ]
    path = layout.file(ROW_FILES[split])
    parse = functools.partial(parse_row, names=names, names_file=NAME_FILES[split])
    rows = parsed_lines(path, parse, problems, "row")
    mixed = [(number, row) for number, row in rows if row and row.foreign]
    many = len(mixed) > MAX_MIXED_ROWS * len(rows)
    for number, row in mixed:
        fatal = many or len(row.foreign) == len(row.frames)
        text = f"{owner_text(row.owner)}, but it has {row.foreign[0].path}"
        problems.append(Problem("frames of others", text, path, number, fatal))
    return rows


def owner_text(who: Owner) -> str:
    return f"{who.modality} tracklet of identity {who.identity} and camera {who.camera}"


def parse_row(text: str, names: Sequence[Frame | None], names_file: str) -> Row:
    fields = integers(text)
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} numbers, not 5 (modality start end identity camera)")
    modality, start, end, identity, camera = fields
    if start < 1 or end > len(names):
        raise ValueError(f"frames {start} to {end}, but {names_file} has 1 to {len(names)}")
    if end < start:
        raise ValueError(f"frames {start} to {end} are none")
    return Row(checked_owner(identity, modality, camera), names[start - 1 : end])


def query_indices(layout: Layout, rows: Rows, problems: list[Problem]) -> set[int]:
    """The indices of the rows that are queries, from 0 on; each has to be an infrared row."""
    queries: set[int] = set()

    def parse(text: str) -> None:
        for number in integers(text):
            if not 1 <= number <= len(rows):
                raise ValueError(f"row {number}, but {ROW_FILES['test']} has 1 to {len(rows)}")
            row = rows[number - 1][1]
            if row and row.owner.modality != "infrared":
                raise ValueError(f"row {number} of {ROW_FILES['test']} is not infrared")
            if number - 1 in queries:
                raise ValueError(f"row {number} is listed twice")
            queries.add(number - 1)

    parsed_lines(layout.file(QUERY_FILE), parse, problems, "query")
    return queries


def missing_folder_problems(folder: str, rows: Rows) -> list[Problem]:
    """A problem if identities have no folder; this finds a wrong root without 460,000 look-ups."""
    frames = (frame for _, row in rows if row for frame in row.frames if frame)
    wanted = {frame.path.partition("/")[0] for frame in frames}
    missing = sorted(wanted - set(subfolder_names(folder)))
    return [Problem("folder", f"{folder} has no folder {enumeration(missing)}")] if missing else []

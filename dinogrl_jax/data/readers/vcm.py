"""HITSZ-VCM: a row of its info files is a tracklet.

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
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.data.problems import Problem, enumeration, raise_or_warn
from dinogrl_jax.data.readers.lines import discarded_paths, integers, parsed_lines
from dinogrl_jax.data.readers.listing import folders_in
from dinogrl_jax.data.readers.spelling import LARGEST, LARGEST_CAMERA
from dinogrl_jax.data.tracklets import Tracklet, left_out_problem
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import file_words

NAME_FILES = {"train": "train_name.txt", "test": "test_name.txt"}
ROW_FILES = {"train": "track_train_info.txt", "test": "track_test_info.txt"}
QUERY_FILE = "query_IDX.txt"
MODALITY = {1: "infrared", 2: "visible"}
MODALITY_FOLDER = {1: "ir", 2: "rgb"}
NAME = re.compile(r"(\d+)M(\d+)D(\d+)T\d+F(\d+\.\w+)", re.ASCII)
# share of the rows that may have some frames of others; the real data set is said to have 0.4 %
MAX_MIXED_ROWS = 0.01


class Layout(NamedTuple):
    info: str  # folder of the info files
    frames: dict[str, str]  # split → folder that holds the identities' folders

    def file(self, name: str) -> str:
        return os.path.join(self.info, name)


class Owner(NamedTuple):
    """Whom a name or a row says that frames show, in the order of a `Tracklet`."""

    identity: int
    camera: int
    modality: str


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


def read_splits(
    root: str,
    *,
    minimum_frames: int = 12,
    discard_train: str = "",
    discard_test: str = "",
    problems: list[Problem] | None = None,
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets in the order of their rows.

    Args:
        root: the folder of the data set, in one of the layouts above.
        minimum_frames: shorter tracklets are left out, as in every published result.
        discard_train, discard_test: files that list frames (`Train/0001/ir/D2/1.jpg`) to leave out
            before the minimum applies; empty for none.
        problems: collects wrong lines, which are left out; None raises instead.

    Test tracklets have the role "both": each is a query in one direction and in the gallery in the
    other. Infrared rows that query_IDX.txt does not list are "gallery" only. A row in which some
    frames are named after another identity, modality or camera is kept with a warning, as in every
    published result, unless all its frames are, or more than 1 in 100 rows are of this kind. No
    frame is opened.

    Raises:
        InputError: a folder or file is missing, no tracklet remains, or lines are wrong; it names
            all of them.
    """
    layout = find_layout(root)
    found: list[Problem] = []
    rows = {split: read_rows(layout, split, found) for split in ("train", "test")}
    queries = query_indices(layout, rows["test"], found)
    for split, folder in layout.frames.items():
        found += missing_folder_problems(folder, rows[split])
    raise_or_warn(found, layout.info, problems)
    minimum = max(minimum_frames, 1)
    left_out: list[Problem] = []
    train, test = (
        row_tracklets(layout, split, rows[split], queries, discard, minimum, left_out)
        for split, discard in (("train", discard_train), ("test", discard_test))
    )
    raise_or_warn(left_out, layout.info, problems)
    return train, test


def row_tracklets(
    layout: Layout,
    split: str,
    rows: Rows,
    queries: set[int],
    discard: str,
    minimum: int,
    problems: list[Problem],
) -> list[Tracklet]:
    """The rows as tracklets: discarded frames are left out first, then short tracklets."""
    folder = layout.frames[split]
    gone = discarded_paths(discard, (f"{folder}/", f"{split.title()}/"))
    file, seen, tracklets = layout.file(ROW_FILES[split]), set(), []
    for index, (number, row) in enumerate(rows):
        if row is None:
            continue
        paths = [frame.path for frame in row.frames if frame]
        seen.update(gone.intersection(paths))
        kept = tuple(f"{folder}/{path}" for path in paths if path not in gone)
        role = "both" if row.owner.modality == "visible" or index in queries else "gallery"
        tracklet = Tracklet(kept, *row.owner, "train" if split == "train" else role)
        if len(kept) >= minimum:
            tracklets.append(tracklet)
        else:
            problems.append(left_out_problem(tracklet, len(paths), minimum, file, number))
    if discard and not seen:
        example = f"{split.title()}/0001/ir/D2/1.jpg"
        text = f"{discard}: no line names a {split} frame, as {example} would"
        problems.append(Problem("discard list", text, discard))
    if not tracklets:
        text = f"no {split} tracklet has {minimum} frames: lower data.minimum_frames"
        problems.append(Problem("no tracklets", f"{text} or check {ROW_FILES[split]}", file))
    return tracklets


def find_layout(root: str) -> Layout:
    """The layout of a data set and its folders; InputError if a file or folder is missing."""
    advice = "set data.root to the folder that holds info/, Train/ and Test/"
    root = os.path.normpath(root) if root else root
    if not os.path.isdir(root):
        packed = f" but {kind}" if (kind := file_words(root)) else ""
        raise InputError(f"data.root = {root!r} is not a folder{packed}: {advice}")
    bases = [root, os.path.join(root, "data")]
    candidates = [f"{base}{info}" for base in bases for info in ("/info", "/Info", "")]
    files = [*NAME_FILES.values(), *ROW_FILES.values(), QUERY_FILE]
    missing = {
        info: [name for name in files if not os.path.isfile(os.path.join(info, name))]
        for info in candidates
    }
    info = min(candidates, key=lambda folder: len(missing[folder]))
    if names := missing[info]:
        where = f"{root} or its info/, Info/ or data/" if len(names) == len(files) else info
        for inner in folders_in(Path(root)):
            if any((inner / place / files[0]).is_file() for place in ("info", "Info", "")):
                advice = f"set data.root to {inner}, which has it"
        raise InputError(f"no {', '.join(names)} in {where}: {advice}")
    for base in bases:
        split_roots = {split: split_folder(base, split) for split in ("train", "test")}
        if any(os.path.isdir(folder) for folder in split_roots.values()):
            return Layout(info, split_roots)
    for base in bases:
        if any(path.name.isdigit() for path in Path(base).glob("*/")):
            return Layout(info, {"train": base, "test": base})
    raise InputError(f"neither Train/ and Test/ nor folders like 0001/ in {root}: {advice}")


def split_folder(base: str, split: str) -> str:
    """The folder of a split, Train or train."""
    small = os.path.join(base, split)
    return small if os.path.isdir(small) else os.path.join(base, split.title())


def checked_owner(identity: int, modality: int, camera: int) -> Owner:
    if modality not in MODALITY:
        raise ValueError(f"modality {modality} is neither 1 (infrared) nor 2 (visible)")
    if not 1 <= camera < LARGEST_CAMERA:
        raise ValueError(f"camera {str(camera)[:40]} is not a camera's number: they start at 1")
    if not 0 <= identity < LARGEST:
        raise ValueError(f"identity {str(identity)[:40]} is not a person's number")
    return Owner(identity, camera, MODALITY[modality])


@functools.cache  # frames of one folder share their owner and its path, which saves memory
def owner_and_folder(identity: str, modality: str, camera: str) -> tuple[Owner, str]:
    owner = checked_owner(int(identity), int(modality), int(camera))
    return owner, f"{identity}/{MODALITY_FOLDER[int(modality)]}/D{camera}/"


def parse_frame(name: str) -> Frame:
    match = NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name[:40]!r} is not a name like 0001M2D3T1F6.jpg")
    *key, file = match.groups()
    owner, folder = owner_and_folder(*key)
    return Frame(owner, folder + file)


def read_rows(layout: Layout, split: str, problems: list[Problem]) -> Rows:
    """The rows of a split; a few rows with some frames of others are not a fatal problem."""
    path, names_file = layout.file(ROW_FILES[split]), NAME_FILES[split]
    named = parsed_lines(layout.file(names_file), parse_frame, problems, "name")
    names = [frame for _, frame in named]
    parse = functools.partial(parse_row, names=names, names_file=names_file)
    rows = parsed_lines(path, parse, problems, "row")
    mixed = [(number, row) for number, row in rows if row and row.foreign]
    many = len(mixed) > MAX_MIXED_ROWS * len(rows)
    for number, row in mixed:
        fatal = many or len(row.foreign) == len(row.frames)
        who = f"{row.owner.modality} tracklet of identity {row.owner.identity}"
        text = f"{who} and camera {row.owner.camera}, but it has {row.foreign[0].path}"
        problems.append(Problem("frames of others", text, path, number, fatal))
    return rows


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
    there = {path.name for path in Path(folder).glob("*/")}
    missing = sorted(wanted - there)
    if not missing:
        return []
    others = {name.lstrip("0"): name for name in there - wanted}
    renamed = [f"{others[x.lstrip('0')]} for {x}" for x in missing if x.lstrip("0") in others]
    hint = f": rename {enumeration(renamed)}" if renamed else ""
    return [Problem("folder", f"{folder} has no folder {enumeration(missing)}{hint}")]

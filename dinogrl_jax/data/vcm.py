"""HITSZ-VCM on disk: where its files are, what its info files say, and the tracklets they list.

    <root>/{Train,Test}/<identity>/{ir,rgb}/D<camera>/<frame>.jpg    layout A
    <root>/<identity>/{ir,rgb}/D<camera>/<frame>.jpg                 layout B
    <root>/info/{train,test}_name.txt          0001M2D3T1F6.jpg
    <root>/info/track_{train,test}_info.txt    modality start end identity camera
    <root>/info/query_IDX.txt                  rows of track_test_info.txt

Layout C is B with the info files beside the identities. All of it may also lie in <root>/data.
Tracks of one identity, modality and camera share a folder, so a track is a range of names.

Source: github.com/VCM-project233/HITSZ-VCM-data and the readers of MITML, VLD, DinoGRL.
"""

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dinogrl_jax.data.tracklets import Tracklet, listed, refuse
from dinogrl_jax.errors import InputError

NAMES = {"train": "train_name.txt", "test": "test_name.txt"}
ROWS = {"train": "track_train_info.txt", "test": "track_test_info.txt"}
QUERIES = "query_IDX.txt"
MODALITY = {1: "infrared", 2: "visible"}
FOLDER = {1: "ir", 2: "rgb"}
NAME = re.compile(r"(\d+)M(\d+)D(\d+)T\d+F(\d+\.\w+)", re.ASCII)

MIXED_ROWS = 0.01  # share that may have some frames of others; the real data are said to have 0.4 %

logger = logging.getLogger(__name__)


class Layout(NamedTuple):
    letter: str  # "A", "B" or "C"
    info: str  # folder of the info files
    frames: dict[str, str]  # split → folder that holds the identities' folders


class Owner(NamedTuple):
    """What a name or a row says of frames."""

    identity: int
    modality: str
    camera: int


class Frame(NamedTuple):
    owner: Owner
    path: str  # below the split's folder


class Row(NamedTuple):
    owner: Owner
    frames: Sequence[Frame | None]  # None for a wrong name

    @property
    def foreign(self) -> list[Frame]:
        """The frames whose names say another owner."""
        return [frame for frame in self.frames if frame and frame.owner != self.owner]


def read(
    root: str, *, minimum_frames: int = 12, discard_train: str = "", discard_test: str = ""
) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets, in the order of their rows.

    Args:
        root: the data set's folder, in any of the layouts above.
        minimum_frames: tracklets with fewer frames are left out, as in every published result.
        discard_train, discard_test: files of frame paths (`Train/0001/ir/D2/1.jpg`) that are left
            out before the minimum is applied; empty for none.

    A test tracklet has role "both", since each serves as a query in one direction and in the
    gallery in the other; infrared rows that query_IDX.txt does not list are "gallery" only.
    A row of which some frames bear another identity, modality or camera is kept with a warning,
    as in every published result, unless more than 1 in 100 rows are so, or all frames of the row.
    The frames themselves are not looked at.

    Raises:
        InputError: a folder or file is missing, nothing is left, or lines are wrong: all at once.
    """
    layout = find(root)
    problems: list[str] = []
    rows = {split: rows_of(layout, split, problems) for split in ("train", "test")}
    queries = query_rows(layout, rows["test"], problems)
    for split, folder in layout.frames.items():
        problems += missing_folders(folder, rows[split])
    refuse(problems, layout.info)
    roles = {"train": ["train"] * len(rows["train"]), "test": test_roles(rows["test"], queries)}
    discards = {"train": discard_train, "test": discard_test}
    train, test = (
        tracklets_of(layout, split, rows[split], roles[split], discards[split], minimum_frames)
        for split in ("train", "test")
    )
    logger.info("HITSZ-VCM in layout %s, info files in %s", layout.letter, layout.info)
    return train, test


def find(root: str) -> Layout:
    """Where the info files and the identities' folders are."""
    advice = "set data.root to the folder that holds info/, Train/ and Test/"
    root = os.path.normpath(root) if root else root
    if not os.path.isdir(root):
        raise InputError(f"data.root = {root!r} is not a folder: {advice}")
    bases = [root, os.path.join(root, "data")]
    candidates = [f"{base}{info}" for base in bases for info in ("/info", "/Info", "")]
    files = [*NAMES.values(), *ROWS.values(), QUERIES]
    info = max(candidates, key=lambda folder: sum(is_file(folder, name) for name in files))
    if missing := [name for name in files if not is_file(info, name)]:
        where = f"{root} or its info/, Info/ or data/" if len(missing) == len(files) else info
        raise InputError(f"no {', '.join(missing)} in {where}: {advice}")
    for base in bases:
        split_roots = {split: os.path.join(base, split.title()) for split in ("train", "test")}
        if any(os.path.isdir(folder) for folder in split_roots.values()):
            return Layout("A", info, split_roots)
    for base in bases:
        if any(name.isdigit() for name in folders_in(base)):
            letter = "C" if info == base else "B"
            return Layout(letter, info, {"train": base, "test": base})
    raise InputError(f"neither Train/ and Test/ nor folders like 0001/ in {root}: {advice}")


def is_file(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))


def folders_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    # Not os.scandir: its is_dir() raises at a symbolic link to itself.
    return [name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))]


def lines_of(path: str) -> list[tuple[int, str]]:
    """The lines that hold something, each with its number in the file, from 1 on."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def parsed(path: str, parse: Callable[[str], Any], problems: list[str]) -> list:
    """`parse` of every line; None where it raises ValueError, which becomes a problem."""
    results = []
    for number, text in lines_of(path):
        try:
            results.append(parse(text))
        except ValueError as error:
            problems.append(f"{os.path.basename(path)}:{number}: {error}")
            results.append(None)
    if not results:
        problems.append(f"{os.path.basename(path)} is empty")
    return results


def numbers(text: str) -> list[int]:
    """The integers of a line, separated by white space or commas."""
    words = re.findall(r"[^\s,]+", text)
    for word in words:
        if not re.fullmatch(r"[+-]?[0-9]+", word):
            raise ValueError(f"{word[:40]!r} is not a whole number")
    return [int(word) for word in words]


def owner(identity: int, modality: int, camera: int) -> Owner:
    if modality not in MODALITY:
        raise ValueError(f"modality {modality} is neither 1 (infrared) nor 2 (visible)")
    if camera < 1:
        raise ValueError(f"camera {camera} is not a camera's number: they start at 1")
    return Owner(identity, MODALITY[modality], camera)


class FrameParser:
    """Reads names; frames of one folder share their owner and the folder's path."""

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
            found = owner(identity, modality, camera)
            self.folders[key] = found, f"{key[0]}/{FOLDER[modality]}/D{key[2]}/"
        found, folder = self.folders[key]
        return Frame(found, folder + file)


def rows_of(layout: Layout, split: str, problems: list[str]) -> list[Row | None]:
    """The rows of a split, None for a wrong one; warns of a few rows with some frames of others."""
    names = parsed(os.path.join(layout.info, NAMES[split]), FrameParser(), problems)
    path = os.path.join(layout.info, ROWS[split])
    rows = parsed(path, functools.partial(row_of, names=names, names_file=NAMES[split]), problems)
    mixed = []
    for (number, text), row in zip(lines_of(path), rows, strict=True):
        if row and (foreign := row.foreign):
            disagreement = f"{ROWS[split]}:{number}: {text!r}, but it has {foreign[0].path}"
            (problems if len(foreign) == len(row.frames) else mixed).append(disagreement)
    if len(mixed) > MIXED_ROWS * len(rows):
        problems += mixed
    elif mixed:
        logger.warning("frames of others are kept: %s", listed(mixed))
    return rows


def row_of(text: str, names: Sequence[Frame | None], names_file: str) -> Row:
    fields = numbers(text)
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} numbers, not 5 (modality start end identity camera)")
    modality, start, end, identity, camera = fields
    if start < 1 or end > len(names):
        raise ValueError(f"frames {start} to {end}, but {names_file} has 1 to {len(names)}")
    if end < start:
        raise ValueError(f"frames {start} to {end} are none")
    return Row(owner(identity, modality, camera), names[start - 1 : end])


def query_rows(layout: Layout, rows: Sequence[Row | None], problems: list[str]) -> set[int]:
    """Indices of the rows that are queries, from 0; each has to be an infrared row."""
    queries: set[int] = set()

    def parse(text: str) -> None:
        for number in numbers(text):
            if not 1 <= number <= len(rows):
                raise ValueError(f"row {number}, but {ROWS['test']} has 1 to {len(rows)}")
            row = rows[number - 1]
            if row and row.owner.modality != "infrared":
                raise ValueError(f"row {number} of {ROWS['test']} is not infrared")
            if number - 1 in queries:
                raise ValueError(f"row {number} is listed twice")
            queries.add(number - 1)

    parsed(os.path.join(layout.info, QUERIES), parse, problems)
    return queries


def test_roles(rows: Sequence[Row], queries: set[int]) -> list[str]:
    return [
        "both" if index in queries or row.owner.modality == "visible" else "gallery"
        for index, row in enumerate(rows)
    ]


def missing_folders(folder: str, rows: Sequence[Row | None]) -> list[str]:
    """A problem if identities have no folder: one listing finds a wrong root without 460,000."""
    wanted = {frame.path.partition("/")[0] for row in rows if row for frame in row.frames if frame}
    missing = sorted(wanted - set(folders_in(folder)))
    return [f"{folder} has no folder {listed(missing)}"] if missing else []


def tracklets_of(
    layout: Layout,
    split: str,
    rows: Sequence[Row],
    roles: Sequence[str],
    discard: str,
    minimum: int,
) -> list[Tracklet]:
    """The rows as tracklets, without discarded frames and then without short tracklets."""
    discarded = discarded_paths(layout, split, discard) if discard else set()
    folder = layout.frames[split]
    tracklets, seen = [], set()
    for row, role in zip(rows, roles, strict=True):
        (identity, modality, camera), paths = row.owner, [frame.path for frame in row.frames]
        seen.update(discarded.intersection(paths))
        kept = tuple(f"{folder}/{path}" for path in paths if path not in discarded)
        if len(kept) >= max(minimum, 1):
            tracklets.append(Tracklet(kept, identity, camera, modality, role))
    if discard and not seen:
        example = f"{split.title()}/0001/ir/D2/1.jpg"
        raise InputError(f"{discard}: no line names a {split} frame, as {example} would")
    logger.info(
        "%s: %d of %d tracklets have %d frames or more; %d frames discarded",
        split, len(tracklets), len(rows), minimum, len(seen),
    )  # fmt: skip
    if not tracklets:
        raise InputError(
            f"no {split} tracklet has {minimum} frames: lower data.minimum_frames "
            f"or check {ROWS[split]} in {layout.info}"
        )
    return tracklets


def discarded_paths(layout: Layout, split: str, path: str) -> set[str]:
    """The discard list's frames, as paths below the split's folder."""
    prefixes = (layout.frames[split] + "/", f"{split.title()}/")
    lines = [text.removeprefix("./") for _, text in lines_of(path)]
    for prefix in prefixes:
        lines = [text.removeprefix(prefix) for text in lines]
    return set(lines)

"""HITSZ-VCM: a row of its info files is a tracklet; `vcm_files` reads the files."""

import logging
from collections.abc import Sequence

from dinogrl_jax.data.problems import SHORT, Problem, raise_or_warn
from dinogrl_jax.data.readers.lines import discarded_paths
from dinogrl_jax.data.readers.vcm_files import (
    ROW_FILES,
    Layout,
    Row,
    Rows,
    find_layout,
    missing_folder_problems,
    query_indices,
    read_rows,
)
from dinogrl_jax.data.tracklets import Tracklet

logger = logging.getLogger(__name__)


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
        root: the folder of the data set, in one of the layouts of `vcm_files`.
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
    if problems is None:
        raise_or_warn(found, layout.info)
    roles = {"train": ["train"] * len(rows["train"]), "test": test_roles(rows["test"], queries)}
    discards = {"train": discard_train, "test": discard_test}
    minimum = max(minimum_frames, 1)
    left_out: list[Problem] = []
    train, test = (
        row_tracklets(layout, split, rows[split], roles[split], discards[split], minimum, left_out)
        for split in ("train", "test")
    )
    logger.info("HITSZ-VCM in layout %s, info files in %s", layout.letter, layout.info)
    if problems is None:
        raise_or_warn([problem for problem in left_out if problem.fatal], layout.info)
    else:
        problems += found + left_out
    return train, test


def test_roles(rows: Rows, queries: set[int]) -> list[str]:
    """The role of each test row: "both", or "gallery" for infrared rows that are no queries."""
    return [
        "both" if index in queries or (row and row.owner.modality == "visible") else "gallery"
        for index, (_, row) in enumerate(rows)
    ]


def row_tracklets(
    layout: Layout,
    split: str,
    rows: Rows,
    roles: Sequence[str],
    discard: str,
    minimum: int,
    problems: list[Problem],
) -> list[Tracklet]:
    """The rows as tracklets: discarded frames are left out first, then short tracklets."""
    folder = layout.frames[split]
    gone = discarded_paths(discard, (f"{folder}/", f"{split.title()}/"))
    file, seen, tracklets = layout.file(ROW_FILES[split]), set(), []
    for (number, row), role in zip(rows, roles, strict=True):
        if row is None:
            continue
        paths = frame_paths(row)
        seen.update(gone.intersection(paths))
        kept = tuple(f"{folder}/{path}" for path in paths if path not in gone)
        if len(kept) >= minimum:
            tracklets.append(Tracklet(kept, *owner_fields(row), role))
        else:
            text = f"left out: {len(kept)} of {len(paths)} frames remain, fewer than {minimum}"
            problems.append(Problem(SHORT, text, file, number, fatal=False))
    if discard and not seen:
        example = f"{split.title()}/0001/ir/D2/1.jpg"
        text = f"{discard}: no line names a {split} frame, as {example} would"
        problems.append(Problem("discard list", text, discard))
    if not tracklets:
        text = f"no {split} tracklet has {minimum} frames: lower data.minimum_frames"
        problems.append(Problem("no tracklets", f"{text} or check {ROW_FILES[split]}", file))
    logger.info(
        "%s: %d of %d tracklets have %d frames or more; %d frames discarded",
        split, len(tracklets), len(rows), minimum, len(seen),
    )  # fmt: skip
    return tracklets


def frame_paths(row: Row) -> list[str]:
    """The paths of the frames of a row, below the folder of its split."""
    return [frame.path for frame in row.frames if frame]


def owner_fields(row: Row) -> tuple[int, int, str]:
    """Identity, camera and modality, in the order of a `Tracklet`."""
    return row.owner.identity, row.owner.camera, row.owner.modality

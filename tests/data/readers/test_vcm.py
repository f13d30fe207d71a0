import logging
import os
import time

import pytest

from dinogrl_jax.data import problems
from dinogrl_jax.data.readers import vcm
from dinogrl_jax.data.tracklets import queries_and_gallery
from dinogrl_jax.interface.errors import InputError


def problem(root, **settings) -> str:
    """The one line that reading ends with."""
    with pytest.raises(InputError) as caught:
        vcm.read_splits(str(root), **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", ["A", "B", "C"])
@pytest.mark.parametrize("nested", [False, True], ids=["root", "data"])
def test_every_layout_gives_the_same_tracklets(tree_of, layout, nested):
    tree = tree_of(layout)
    root = tree.root
    tree.root = root / "data" if nested else root
    tree.write()
    train, test = vcm.read_splits(str(root))
    assert len(train) == len(test) == 12
    assert train[0].frames[:2] == tuple(
        str(tree.folder("train") / "0001" / "ir" / "D11" / name) for name in ("91.jpg", "96.jpg")
    )
    assert [tracklet[1:-1] for tracklet in train[2:4]] == [
        (1, 3, "infrared", "train", -1),
        (1, 11, "visible", "train", -1),
    ]
    assert [len(tracklet.frames) for tracklet in test] == [12, 12, 14] * 4
    assert {tracklet.identity for tracklet in test} == {503, 1004}
    # Two tracks share the folder of camera 11 and have no frame in common.
    first, second = (set(tracklet.frames) for tracklet in test[:2])
    assert os.path.dirname(min(first)) == os.path.dirname(min(second))
    assert not first & second


@pytest.mark.parametrize(
    "name, path",
    [
        ("0001M2D3T1F1.jpg", "0001/rgb/D3/1.jpg"),
        ("0503M1D12T10F4000.png", "0503/ir/D12/4000.png"),
        ("12345M1D7T2F08.jpg", "12345/ir/D7/08.jpg"),
    ],
)
def test_names_of_the_info_files_become_paths(name, path):
    frame = vcm.parse_frame(name)
    assert frame.path == path
    assert frame.owner.identity == int(path.split("/")[0])


@pytest.mark.parametrize(
    "lines", [["1 2 3 7 8 9"], ["1 2", "", "3,7", "8", "9", ""], ["1,2, 3\t7 ,8", "\t9"]]
)
def test_queries_on_one_line_or_many(tree, lines):
    tree.lines["query_IDX.txt"] = lines
    _, test = vcm.read_splits(tree.write())
    for direction in ("infrared", "visible"):
        queries, gallery = queries_and_gallery(test, direction)
        assert len(queries) == len(gallery) == 6
        assert {test[i].modality for i in queries} == {direction}
        assert sorted(queries + gallery) == list(range(12))


def test_an_infrared_row_that_is_no_query_stays_in_the_gallery(tree):
    tree.lines["query_IDX.txt"] = ["1 2 3 7 8"]
    _, test = vcm.read_splits(tree.write())
    assert queries_and_gallery(test, "infrared")[0] == [0, 1, 2, 6, 7]
    assert queries_and_gallery(test, "visible")[1] == [0, 1, 2, 6, 7, 8]


def test_blank_lines_commas_and_windows_line_ends_change_nothing(tree):
    expected = vcm.read_splits(tree.write())
    rows = tree.lines["track_train_info.txt"]
    tree.lines["track_train_info.txt"] = [row.replace(" ", ", ") + "\r" for row in rows] + ["", " "]
    tree.lines["track_test_info.txt"].insert(5, "")
    tree.lines["train_name.txt"].insert(3, "")
    root = tree.write()
    path = tree.info("train_name.txt")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert vcm.read_splits(root) == expected


def test_short_tracklets_are_left_out(tree):
    row = tree.lines["track_train_info.txt"]
    row[0] = "1 1 11 0001 11"
    train, _ = vcm.read_splits(tree.write())
    assert len(train) == 11
    assert len(vcm.read_splits(tree.write(), minimum_frames=11)[0]) == 12
    assert [len(split) for split in vcm.read_splits(tree.write(), minimum_frames=13)] == [4, 4]
    assert "data.minimum_frames" in problem(tree.write(), minimum_frames=15)


@pytest.mark.parametrize("layout", ["A", "B"])
def test_discarding_comes_before_the_minimum(tree_of, tmp_path, layout):
    tree = tree_of(layout)
    root = tree.write()
    lists = tmp_path / "train.txt", tmp_path / "test.txt"
    prefix = "Train/" if layout == "A" else ""
    lists[0].write_text(f"{prefix}0001/ir/D11/91.jpg\n\n{prefix}0001/ir/D3/96.jpg\n")
    lists[1].write_text(f"{tree.folder('test')}/0503/rgb/D3/91.jpg\n")
    train, test = vcm.read_splits(root, discard_train=str(lists[0]), discard_test=str(lists[1]))
    assert len(train) == 11  # the first track had 12 frames
    assert [len(tracklet.frames) for tracklet in train[:2]] == [12, 13]
    assert not any(frame.endswith("0001/ir/D3/96.jpg") for frame in train[1].frames)
    assert [len(tracklet.frames) for tracklet in test].count(13) == 1


def test_discard_lists_that_cannot_work(tree, tmp_path):
    root = tree.write()
    assert "nothing.txt" in problem(root, discard_train=str(tmp_path / "nothing.txt"))
    (tmp_path / "wrong.txt").write_text("0001M1D11T1F91.jpg\n")
    message = problem(root, discard_test=str(tmp_path / "wrong.txt"))
    assert "wrong.txt" in message and "Test/0001/ir/D2/1.jpg" in message


@pytest.mark.parametrize(
    "file, line, text, words",
    [
        ("train_name.txt", 2, "0001X2D3T1F1.jpg", "'0001X2D3T1F1.jpg' is not a name"),
        ("train_name.txt", 2, "0001M3D11T1F96.jpg", "modality 3 is neither"),
        ("test_name.txt", 5, "0503M1D0T1F111.jpg", "camera 0"),
        ("track_train_info.txt", 1, "1 1 12 0001", "4 numbers"),
        ("track_train_info.txt", 1, "1 1 12 0001 x3", "'x3' is not a whole number"),
        ("track_train_info.txt", 12, "2 139 153 0002 3", "frames 139 to 153"),
        ("track_train_info.txt", 12, "2 0 12 0002 3", "frames 0 to 12"),
        ("track_train_info.txt", 1, "1 12 1 0001 11", "are none"),
        ("track_train_info.txt", 1, "0 1 12 0001 11", "modality 0"),
        ("track_train_info.txt", 1, "1 1 12 0001 -1", "camera -1"),
        ("track_train_info.txt", 1, "2 1 12 0001 11", "0001/ir/D11/91.jpg"),
        ("track_train_info.txt", 1, "1 1 12 0001 1", "0001/ir/D11/91.jpg"),
        ("track_test_info.txt", 1, "1 1 12 0504 11", "0503/ir/D11/91.jpg"),
        ("track_test_info.txt", 1, "1 14 25 0503 11", "0503/ir/D3/91.jpg"),
        ("query_IDX.txt", 1, "1 2 13", "row 13"),
        ("query_IDX.txt", 1, "0 1", "row 0"),
        ("query_IDX.txt", 1, "1 4", "row 4 of track_test_info.txt is not infrared"),
        ("query_IDX.txt", 1, "1 1", "twice"),
        ("query_IDX.txt", 1, "one", "'one'"),
    ],
)
def test_wrong_lines_are_named(tree, file, line, text, words):
    tree.lines[file][line - 1] = text
    message = problem(tree.write())
    assert f"{file}:{line}: " in message and words in message


def test_line_numbers_count_blank_lines(tree):
    tree.lines["track_train_info.txt"][:1] = ["", "", "1 1 12 0001"]
    assert "track_train_info.txt:3: 4 numbers" in problem(tree.write())


def test_all_problems_are_reported_at_once_and_thousands_summarised(tree):
    tree.lines["query_IDX.txt"] = ["x"]
    tree.lines["test_name.txt"] = ["spoilt"] * 3000
    message = problem(tree.write())
    assert "test_name.txt:10: " in message and "test_name.txt:11: " not in message
    assert "and 2991 more problems" in message
    assert len(message) < 1500


def test_few_mixed_rows_are_kept_with_a_warning(tree, caplog):
    tree.lines["track_train_info.txt"] *= 20
    tree.lines["track_train_info.txt"][0] = "1 14 25 0001 11"  # ends with a frame of camera 3
    with caplog.at_level(logging.WARNING, logger=problems.__name__):
        train, _ = vcm.read_splits(tree.write())
    assert len(train) == 240
    assert train[0].camera == 11 and "/D3/" in train[0].frames[-1]
    assert "track_train_info.txt:1:" in caplog.text


@pytest.mark.parametrize(
    "file", [*vcm.NAME_FILES.values(), *vcm.ROW_FILES.values(), vcm.QUERY_FILE]
)
def test_a_missing_or_empty_file_is_named(tree, file):
    root = tree.write()
    tree.info(file).write_text("\n")
    assert f"{file} is empty" in problem(root)
    tree.info(file).unlink()
    message = problem(root)
    assert file in message and "data.root" in message


def test_roots_that_are_none(tree, tmp_path):
    assert "''" in problem("")
    assert str(tmp_path / "nowhere") in problem(tmp_path / "nowhere")
    assert "train_name.txt" in problem(tmp_path)
    tree.write()
    for split in ("train", "test"):
        tree.folder(split).rename(tmp_path / split)
    message = problem(tree.root)
    assert "Train/" in message and "0001/" in message


def test_identities_without_a_folder_are_named(tree):
    root = tree.write()
    (tree.folder("test") / "1004").rmdir()
    assert "has no folder 1004" in problem(root)
    (tree.folder("test") / "1004").symlink_to("1004")  # a loop
    assert "has no folder 1004" in problem(root)


def test_a_quarter_of_the_full_data_set_is_indexed_in_seconds(tree):
    tracks, frames = 2_500, 23
    for split, identities in (("train", (1, 2)), ("test", (503, 1004))):
        names, rows = [], []
        for track in range(tracks):
            identity, modality, camera = identities[track % 2], 1 + track // 2 % 2, 1 + track % 12
            rows.append(f"{modality} {len(names) + 1} {len(names) + frames} {identity} {camera}")
            prefix = f"{identity:04d}M{modality}D{camera}T{track}F"
            names += [f"{prefix}{frame}.jpg" for frame in range(frames)]
        tree.lines[f"{split}_name.txt"], tree.lines[f"track_{split}_info.txt"] = names, rows
    infrared = [str(i + 1) for i, row in enumerate(rows) if row.startswith("1")]
    tree.lines["query_IDX.txt"] = [" ".join(infrared)]
    root = tree.write()
    start = time.process_time()
    train, test = vcm.read_splits(root)
    assert time.process_time() - start < 8  # half a second where annotations are not checked
    assert len(train) + len(test) == 2 * tracks

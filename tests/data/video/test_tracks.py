"""Files of boxes, as trackers write them."""

import numpy as np
import pytest

from dinogrl_jax.data.video.tracks import read_tracks
from dinogrl_jax.interface.errors import InputError

LINE = "1,3,10.5,20.25,30,60.5,0.9,1,-1,-1"


def written(tmp_path, *lines):
    path = tmp_path / "cam1.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        "1,3,10.5,20.25,30,60.5",
        "1, 3, 10.5, 20.25, 30, 60.5, 0.9, -1, -1, -1",
        "1 3 10.5 20.25 30 60.5 0.9",
        "1\t3\t10.5\t20.25\t30\t60.5\t0.9\t-1\t-1\t-1",
        "1;3;10.5;20.25;30;60.5;-1",
        "1.0,3.0,1.05e1,20.25,30.0,60.5,0.9,",
        "+1,3,10.5,20.25,30,60.5,-1,-1,-1,-1,0",
    ],
)
def test_a_line_in_all_its_forms(line, tmp_path):
    heading = "frame,id,bb_left,bb_top,bb_width,bb_height"
    tracks, left_out = read_tracks(written(tmp_path, heading, "", line, "# end"))
    assert (tracks.frame.tolist(), tracks.track.tolist(), tracks.line.tolist()) == ([0], [3], [3])
    assert tracks.box.tolist() == [[10.5, 20.25, 30, 60.5]] and not left_out


def test_boxes_are_in_the_order_of_frames_and_tracks(tmp_path):
    lines = [f"{frame},{track},{frame},{track},5,5" for track in (9, 2) for frame in (3, 1)]
    tracks, _ = read_tracks(written(tmp_path, *lines))
    assert tracks.frame.tolist() == [0, 0, 2, 2] and tracks.track.tolist() == [2, 9, 2, 9]
    assert tracks.line.tolist() == [4, 2, 3, 1]
    assert np.array_equal(tracks.box[:, 1], tracks.track)


def test_what_is_left_out(tmp_path):
    lines = [
        "1,1,0,0,5,5,0.9,1,1",
        "2,1,0,0,5,5,0.3,1,1",
        "3,1,0,0,5,5,0.9,3,1",
        "4,1,0,0,5,5,0,1,1",  # a ground truth says: not to be considered
        "5,1,0,0,5,5,-1,-1,-1",  # unknown
    ]
    path = written(tmp_path, *lines)
    tracks, left_out = read_tracks(path, 1, 0.5, (1,))
    assert tracks.frame.tolist() == [0, 4]
    assert dict(left_out) == {
        "of a lower confidence": 1,
        "of another class": 1,
        "not to be considered (confidence 0)": 1,
    }
    assert len(read_tracks(path)[0].frame) == 4
    with pytest.raises(InputError, match="no box is left: 1 of a lower confidence"):
        read_tracks(written(tmp_path, lines[1]), 1, 0.5)


def test_frames_that_count_from_0(tmp_path):
    path = written(tmp_path, "0,1,0,0,5,5", "1,1,0,0,5,5")
    assert read_tracks(path, first_frame=0)[0].frame.tolist() == [0, 1]
    with pytest.raises(InputError, match="line 1: has frame 0, .*say --first-frame 0"):
        read_tracks(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3,4,5", "line 2: has 5 columns, fewer than 6"),
        ("one,2,3,4,5,6", "line 2: 'one' is not a whole number"),
        ("1.5,2,3,4,5,6", "line 2: '1.5' is not a whole number"),
        ("1,2,3,x,5,6", "line 2: top is 'x', no number"),
        ("1,2,3,nan,5,6", "line 2: top is 'nan', no number"),
        ("1,2,3,1e300,5,6", "line 2: top is '1e300', no number"),
        ("1,2,3,4,inf,6", "line 2: width is 'inf', no number"),
        ("1,2,3,1_0,5,6", "line 2: top is '1_0', no number"),
        ("1,2,3,,5,6", "line 2: top is '', no number"),
        ("1,2,3,4,0,6", "line 2: has a box of 0×6 pixels"),
        ("1,2,3,4,5,-6", "line 2: has a box of 5×-6 pixels"),
        ("1,2,3,4,5,6,high", "line 2: confidence is 'high', no number"),
        ("1,-1,3,4,5,6", "line 2: has track -1: these are detections"),
        ("-4,1,3,4,5,6", "line 2: has frame -4, though frames count from 1 on"),
        ("1,3,3,4,5,6", "line 2: has a second box of track 3 in frame 1, as line 1"),
        ("9" * 40 + ",3,3,4,5,6", "is not a whole number"),
    ],
)
def test_a_wrong_line_is_named(line, reason, tmp_path):
    path = written(tmp_path, LINE, line)
    with pytest.raises(InputError) as caught:
        read_tracks(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message


def test_files_that_have_no_boxes(tmp_path):
    for content, reason in ((b"", "empty"), (b"a,b\n", "no boxes"), (b"\0\0\0 ftypisom", "video")):
        path = tmp_path / "t.txt"
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_tracks(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_tracks(str(tmp_path / "none.txt"))

"""People who are found and followed without a tracker."""

import numpy as np
import pytest
import videos

from dinogrl_jax.data.video import detection
from dinogrl_jax.data.video.detection import linked, overlaps, people_boxes
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import Progress


def found(path, monkeypatch, every=1):
    """What is detected in a video by a detector that sees colour: it finds who is not grey."""

    def detect(pixels):
        boxes = []
        for channel in (0, 2):
            rows, columns = np.nonzero(pixels[:, :, channel] > 180)
            if len(rows):
                left, top = columns.min(), rows.min()
                boxes.append((left, top, np.ptp(columns) + 1, np.ptp(rows) + 1))
        return np.array(boxes, float).reshape(-1, 4), np.ones(len(boxes))

    monkeypatch.setattr(detection, "people_detector", lambda _: detect)
    how = {"every": every, "longest_gap": 0.5, "rate": None, "upright": True}
    return detection.detected_tracks(str(path), Progress("", 1, ""), **how)


def test_each_person_is_one_track(tmp_path, monkeypatch):
    tracks = found(videos.written(tmp_path / "a.mkv", codec="ffv1"), monkeypatch)
    assert sorted(set(tracks.track.tolist())) == [1, 2]
    assert tracks.frame.tolist() == [n for n in range(20) for _ in range(2)]
    for frame, track, box in zip(tracks.frame, tracks.track, tracks.box, strict=True):
        left, top, width, height = videos.box(track - 1, frame)
        margin = detection.MARGIN
        want = left + margin * width, top + margin * height, 0.8 * width, 0.8 * height
        assert np.abs(box - want).max() < 2  # colours have half the resolution
    every = found(tmp_path / "a.mkv", monkeypatch, every=2)
    assert sorted(set(every.frame.tolist())) == list(range(0, 20, 2))


def test_who_is_away_for_long_is_another(tmp_path, monkeypatch):
    def scene(number):
        return videos.scene(number) if number not in range(6, 14) else videos.scene(0) * 0

    tracks = found(videos.written(tmp_path / "a.mp4", picture=scene), monkeypatch)
    assert len(set(tracks.track.tolist())) == 4


def test_nobody(tmp_path, monkeypatch):
    path = videos.written(tmp_path / "a.mp4", 4, lambda _: np.full((64, 96, 3), 99, np.uint8))
    with pytest.raises(InputError, match="finds nobody"):
        found(path, monkeypatch)


def test_opencv_looks_for_people():
    """It finds nobody in grey or in pictures smaller than a window, and takes 16 bits."""
    detect = detection.people_detector(detection.opencv())
    for shape, kind in (
        ((200, 160, 3), np.uint8),
        ((64, 32, 3), np.uint8),
        ((200, 160), np.uint16),
    ):
        assert people_boxes(detect, np.full(shape, 120, kind)).shape == (0, 4)


def test_boxes_of_one_person_become_one():
    boxes = np.array([[0, 0, 10, 20], [1, 1, 10, 20], [50, 0, 10, 20], [90, 0, 10, 20]], float)
    kept = people_boxes(lambda _: (boxes, np.array([1, 2, 1, 0.1])), np.zeros((9, 9, 3), np.uint8))
    assert kept.tolist() == [[2, 3, 8, 16], [51, 2, 8, 16]]


def test_links_are_the_best_of_all_together():
    known = np.array([[0, 0, 10, 10], [6, 0, 10, 10]], float)
    boxes = np.array([[3, 0, 10, 10], [100, 0, 10, 10], [-2, 0, 10, 10]], float)
    assert overlaps(known, boxes)[0].tolist() == pytest.approx([7 / 13, 0, 8 / 12])
    assert linked(known, boxes) == {2: 0, 0: 1}
    assert linked(known[:0], boxes) == linked(known, boxes[:0]) == {}

"""People in a video without a tracker: for a demo, not for figures.

OpenCV's people detector of 2005 (histograms of gradients, Dalal and Triggs) misses who is small,
hidden or bent, and finds trees. Boxes of one picture after the other are linked where they overlap.
"""

import contextlib
from types import ModuleType

import numpy as np
from jaxtyping import Float, UInt
from scipy.optimize import linear_sum_assignment

from dinogrl_jax.data.video.decoding import video_pictures
from dinogrl_jax.data.video.tracks import Tracks, tracks_of
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import Progress

WINDOW = 64, 128  # pixels, width and height of the smallest person that the detector finds
MARGIN = 0.1  # of a window's width and height on each side, around the person
STRIDE, SCALE = (8, 8), 1.05  # of windows, and between their sizes
SURE = 0.3  # least distance from the detector's hyperplane
OVERLAP = 0.3  # least intersection over union of a person in successive pictures
SEEN = 3  # times that a person is found at least


class Person:
    """Who is followed."""

    def __init__(self, track: int, box: Float[np.ndarray, "4"], number: int, seconds: float):
        self.track, self.box, self.seconds = track, box, seconds
        self.rows = [(number, track, tuple(box.tolist()), 0)]

    def moved_to(self, box: Float[np.ndarray, "4"], number: int, seconds: float) -> None:
        self.box, self.seconds = box, seconds
        self.rows.append((number, self.track, tuple(box.tolist()), 0))


def opencv() -> ModuleType:
    """OpenCV; InputError where it is not installed, or has no people detector."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "--detect needs OpenCV, which is not installed: pip install 'dinogrl_jax[detect]'"
        ) from error
    if not hasattr(cv2, "HOGDescriptor"):
        raise InputError(
            f"--detect: OpenCV {cv2.__version__} has no people detector: pip install "
            "'dinogrl_jax[detect]'"
        )
    return cv2


def detected_tracks(
    path: str,
    progress: Progress,
    *,
    every: int,
    longest_gap: float,
    rate: float | None,
    upright: bool,
) -> Tracks:
    """The people whom the detector finds in every `every`-th picture of a video, linked.

    longest_gap: seconds for which nobody is found where a person was, beyond which it is another.

    Raises InputError as `video_pictures`, and where nobody is found.
    """
    detector = people_detector(opencv())
    people: list[Person] = []
    lost: list[Person] = []
    with contextlib.closing(video_pictures(path, rate, upright)) as pictures:
        for picture in pictures:
            if picture.damaged or picture.number % every:
                continue
            boxes = people_boxes(detector, picture.pixels())
            over = [person for person in people if picture.seconds - person.seconds > longest_gap]
            lost += over
            people = [person for person in people if person not in over]
            known = linked(np.array([person.box for person in people]).reshape(-1, 4), boxes)
            for place, box in enumerate(boxes):
                if place in known:
                    people[known[place]].moved_to(box, picture.number, picture.seconds)
                else:
                    track = len(people) + len(lost) + 1
                    people.append(Person(track, box, picture.number, picture.seconds))
            progress.add()
    rows = [row for person in lost + people if len(person.rows) >= SEEN for row in person.rows]
    if not rows:
        raise InputError(
            f"{path}: OpenCV's detector finds nobody of {WINDOW[1]} pixels or more: use a tracker, "
            "--tracks FILE"
        )
    return tracks_of(rows)


def people_detector(cv2: ModuleType):
    """RGB or grey pixels of 8 bits → boxes and how sure the detector is of each."""
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def detect(pixels: UInt[np.ndarray, "h w ..."]) -> tuple[np.ndarray, np.ndarray]:
        if min(pixels.shape[1] / WINDOW[0], pixels.shape[0] / WINDOW[1]) < 1:
            return np.zeros((0, 4)), np.zeros(0)
        bgr = pixels if pixels.ndim == 2 else pixels[:, :, ::-1]
        found = hog.detectMultiScale(np.ascontiguousarray(bgr), winStride=STRIDE, scale=SCALE)
        return np.array(found[0], float).reshape(-1, 4), np.array(found[1], float).reshape(-1)

    return detect


def people_boxes(detect, pixels: UInt[np.ndarray, "h w ..."]) -> Float[np.ndarray, "n 4"]:
    """Left, top, width and height of people, each once, less the margin that a window has."""
    if pixels.dtype != np.uint8:  # a thermal picture, from its coldest to its hottest
        low, high = int(pixels.min()), int(pixels.max())
        pixels = ((pixels - low) * (255.0 / max(high - low, 1))).astype(np.uint8)
    boxes, sure = detect(pixels)
    boxes, sure = boxes[sure >= SURE], sure[sure >= SURE]
    kept: list[np.ndarray] = []
    for box in boxes[np.argsort(-sure, kind="stable")]:
        if not kept or overlaps(np.array(kept), box[None]).max() < OVERLAP:
            kept.append(box)
    found = np.array(kept).reshape(-1, 4)
    margins = MARGIN * found[:, 2:]
    return np.concatenate([found[:, :2] + margins, found[:, 2:] - 2 * margins], axis=1)


def linked(known: Float[np.ndarray, "m 4"], boxes: Float[np.ndarray, "n 4"]) -> dict[int, int]:
    """Which box is which known one: as many as overlap, and as much as they can."""
    if not len(known) or not len(boxes):
        return {}
    overlap = overlaps(known, boxes)
    pairs = zip(*linear_sum_assignment(-np.where(overlap < OVERLAP, 0, overlap)), strict=True)
    return {int(box): int(one) for one, box in pairs if overlap[one, box] >= OVERLAP}


def overlaps(
    first: Float[np.ndarray, "m 4"], second: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "m n"]:
    """Intersection over union of boxes."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    ends = [boxes[:, :2] + boxes[:, 2:] for boxes in (first, second)]
    sides = np.maximum(np.minimum(ends[0][:, None], ends[1][None]) - start, 0)
    shared = sides.prod(axis=-1)
    areas = [boxes[:, 2:].prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)

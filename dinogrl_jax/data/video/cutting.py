"""Tracklets that are cut out of videos: a folder of frames and a manifest of them.

FOLDER/manifest.jsonl                the tracklets, as `readers.manifest` reads them
FOLDER/sources.jsonl                 a line for each line of it: where and when it was filmed
FOLDER/01-cam1/7-1/000123.jpg        video, track and piece of it, number of the frame
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dinogrl_jax.data.video.decoding import VideoPicture, header_count, video_pictures
from dinogrl_jax.data.video.sources import SOURCES, UTC, Source
from dinogrl_jax.data.video.tracks import Tracks
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.progress import Progress

MANIFEST = "manifest.jsonl"
MOST_FRAMES = 100_000  # of a tracklet; a line of a manifest has a longest length
QUALITY = 95  # of JPEG
OUTSIDE, SMALL = "outside of the picture", "smaller than asked for"
DAMAGED = "in damaged pictures"


class Cut(NamedTuple):
    """How tracklets are cut out."""

    first_frame: int = 1  # the number that a video's first picture has in its tracks
    stride: int = 1  # every which box of a tracklet becomes a frame
    padding: float = 0.0  # on each side, as a share of the box's width or height
    minimum_width: int = 1  # pixels, of a box within the picture
    minimum_height: int = 1
    minimum_frames: int = 1  # of a tracklet
    longest_gap: float = 1.0  # seconds without a box, beyond which a tracklet ends
    encoding: str = "jpeg"  # or "png"; pictures of 16 bits are PNG anyway
    upright: bool = True  # as players turn the video
    skip_bad: bool = False  # boxes outside of the picture, and damaged pictures
    rate: float | None = None  # pictures a second, in the place of the stream's clock
    identities: bool = False  # tracks are people, the same in all videos
    split: str = "test"
    test_identities: frozenset[int] = frozenset()  # of `identities`, where some are for training


class Piece:
    """A tracklet in the making: a track until it is interrupted for too long."""

    def __init__(self, track: int, number: int, folder: Path) -> None:
        self.track, self.number, self.folder = track, number, folder
        self.boxes = 0  # so far, of which every stride-th is a frame
        self.seconds = 0.0  # of the last one
        self.files: list[Path] = []
        self.numbers: list[int] = []  # of the frames, as in the tracks
        self.times: list[float] = []
        self.frame_boxes: list[list[float]] = []


class Cutter:
    """Writes the tracklets of one video after the other into a folder."""

    def __init__(self, folder: Path, cut: Cut) -> None:
        self.folder, self.cut = folder, cut
        self.left_out: Counter[str] = Counter()  # boxes
        self.short = 0  # tracklets
        self.notes: list[str] = []
        self.videos = self.tracklets = self.frames = 0

    def add(self, source: Source, tracks: Tracks, progress: Progress) -> None:
        """Cut the tracklets out of a video and list them.

        Raises InputError as `video_pictures`, for boxes of pictures that are not there, and for
        boxes outside of their picture.
        """
        self.videos += 1
        folder = self.folder / f"{self.videos:02d}-{_plain_name(source.video)}"
        open_pieces: dict[int, Piece] = {}
        begun: Counter[int] = Counter()
        finished = []
        for picture, rows in self._pictures_with_boxes(source, tracks):
            progress.add(len(rows))
            if self._is_damaged(source, picture, len(rows)):
                continue
            pixels = picture.pixels()
            for row in rows:
                box = self._box_inside(source, picture, tracks, row)
                if box is None:
                    continue
                track = int(tracks.track[row])
                piece = open_pieces.get(track)
                if piece is None or self._is_over(piece, picture.seconds):
                    finished += [piece] * (piece is not None)
                    begun[track] += 1
                    name = f"{track}-{begun[track]}"
                    piece = open_pieces[track] = Piece(track, begun[track], folder / name)
                self._extend(piece, picture, pixels, box)
        self._list(source, sorted([*finished, *open_pieces.values()], key=_order))

    def _pictures_with_boxes(
        self, source: Source, tracks: Tracks
    ) -> Iterator[tuple[VideoPicture, range]]:
        """The pictures that have boxes, each with the rows of `tracks` that are its.

        What is behind the last box is not decoded.
        """
        numbers, starts = np.unique(tracks.frame, return_index=True)
        ends = [*starts[1:].tolist(), len(tracks.frame)]
        rows = {n: range(*e) for n, *e in zip(numbers.tolist(), starts.tolist(), ends, strict=True)}
        times: list[float] = []
        with contextlib.closing(
            video_pictures(source.video, self.cut.rate, self.cut.upright)
        ) as pictures:
            for picture in pictures:
                times.append(picture.seconds)
                if picture.number in rows:
                    yield picture, rows.pop(picture.number)
                if not rows:
                    break
        if rows:
            raise _early_end(source, len(times), min(rows), tracks, self.cut.first_frame)
        if words := rate_words(times):
            self.notes.append(f"{source.video}: {words}; tracks count its pictures")

    def _is_damaged(self, source: Source, picture: VideoPicture, boxes: int) -> bool:
        """Whether a picture is left out as damaged; InputError where none is to be."""
        if not picture.damaged:
            return False
        if not self.cut.skip_bad:
            raise InputError(
                f"{source.video}: picture {picture.number + 1} is damaged: copy the video again; "
                "--bad skip leaves its boxes out"
            )
        self.left_out[DAMAGED] += boxes
        return True

    def _box_inside(
        self, source: Source, picture: VideoPicture, tracks: Tracks, row: int
    ) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of a padded box within the picture; None if left out."""
        box = padded_box(tracks.box[row], self.cut.padding, picture.width, picture.height)
        inside = padded_box(tracks.box[row], 0.0, picture.width, picture.height)
        if inside is None or box is None:
            if not self.cut.skip_bad:
                left, top, width, height = tracks.box[row]
                where = (
                    f"{source.tracks}: line {tracks.line[row]}" if source.tracks else source.video
                )
                raise InputError(
                    f"{where}: the box of {width:g}×{height:g} at {left:g}, {top:g} is outside of "
                    f"the picture of {picture.width}×{picture.height}: are the tracks of this "
                    "video? --bad skip leaves such boxes out"
                )
            self.left_out[OUTSIDE] += 1
            return None
        width, height = inside[2] - inside[0], inside[3] - inside[1]
        if width < self.cut.minimum_width or height < self.cut.minimum_height:
            self.left_out[SMALL] += 1
            return None
        return box

    def _is_over(self, piece: Piece, seconds: float) -> bool:
        gap = seconds - piece.seconds
        return gap > self.cut.longest_gap or len(piece.files) >= MOST_FRAMES

    def _extend(
        self, piece: Piece, picture: VideoPicture, pixels: np.ndarray, box: tuple[int, ...]
    ) -> None:
        """Count a box of a piece, and write it if it is the stride's turn."""
        piece.seconds, count = picture.seconds, piece.boxes
        piece.boxes += 1
        if count % self.cut.stride:
            return
        left, top, right, bottom = box
        number = picture.number + self.cut.first_frame
        pixels = pixels[top:bottom, left:right]
        piece.files.append(write_frame(piece.folder, number, pixels, self.cut.encoding))
        piece.numbers.append(number)
        piece.times.append(picture.seconds)
        piece.frame_boxes.append([left, top, right - left, bottom - top])

    def _list(self, source: Source, pieces: Sequence[Piece]) -> None:
        """Append the tracklets of a video to the manifest, less the short ones."""
        with (
            open(self.folder / MANIFEST, "a", encoding="utf-8") as manifest,
            open(self.folder / SOURCES, "a", encoding="utf-8") as sources,
        ):
            for piece in pieces:
                if len(piece.files) < self.cut.minimum_frames:
                    self.short += 1
                    for file in piece.files:
                        file.unlink()
                    piece.folder.rmdir()
                    continue
                names = [file.relative_to(self.folder).as_posix() for file in piece.files]
                line = {**self._labels(piece.track), "camera": source.camera}
                line |= {"modality": source.modality, "frames": names}
                manifest.write(json.dumps(line) + "\n")
                sources.write(json.dumps(source_line(source, piece, names[0])) + "\n")
                self.tracklets += 1
                self.frames += len(names)

    def _labels(self, track: int) -> dict[str, int | str]:
        """Identity and split of a tracklet."""
        if not self.cut.identities:
            return {"split": self.cut.split}
        tests, split = self.cut.test_identities, self.cut.split
        if tests:
            split = "test" if track in tests else "train"
        return {"identity": track, "split": split}


def _early_end(
    source: Source, count: int, missing: int, tracks: Tracks, first_frame: int
) -> InputError:
    """What is said of a video that ends before its boxes."""
    promised = header_count(source.video)
    if promised > count:
        return InputError(
            f"{source.video}: ends behind {count} of {promised} pictures, it is cut off: copy it "
            "again"
        )
    line = tracks.line[np.searchsorted(tracks.frame, missing)]
    return InputError(
        f"{source.video}: has {count} pictures, and line {line} of {source.tracks} is of frame "
        f"{missing + first_frame}: are the tracks of this video?"
    )


def padded_box(
    box: Float[np.ndarray, "4"], padding: float, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of a box with its padding within a picture; None if none is left.

    Pixels that it covers in part belong to it.
    """
    left, top, w, h = map(float, box)
    edges = left - padding * w, top - padding * h, left + (1 + padding) * w, top + (1 + padding) * h
    left, top = (max(int(np.floor(edge + 1e-6)), 0) for edge in edges[:2])
    right = min(int(np.ceil(edges[2] - 1e-6)), width)
    bottom = min(int(np.ceil(edges[3] - 1e-6)), height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def write_frame(folder: Path, number: int, pixels: np.ndarray, encoding: str) -> Path:
    """Write a frame of 8 or 16 bits; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    jpeg = encoding == "jpeg" and pixels.dtype == np.uint8
    file = folder / f"{number:06d}.{'jpg' if jpeg else 'png'}"
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if jpeg:
        picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    else:
        picture.save(file, "PNG", compress_level=1)
    return file


def source_line(source: Source, piece: Piece, first: str) -> dict:
    """Where and when a tracklet was filmed.

    Times are seconds since 1970 where the start of the video is known, else from its first picture.
    """
    begin = source.start or 0.0
    return {
        "path": first,  # as the manifest's first frame, by which a features file names it
        "video": source.video,
        "track": piece.track,
        "piece": piece.number,
        "clock": "video" if source.start is None else UTC,
        "frames": piece.numbers,
        "times": [round(begin + seconds, 6) for seconds in piece.times],
        "boxes": piece.frame_boxes,
    }


def _plain_name(video: str) -> str:
    """The name of a video, of letters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(video).stem)[:40].strip("_") or "video"


def _order(piece: Piece) -> tuple[int, int]:
    return piece.track, piece.number


def rate_words(times: Sequence[float]) -> str:
    """A note on a frame rate that varies; empty where it does not."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    if len(steps) < 2 or steps.max() <= 1.5 * steps.min():
        return ""
    return f"its rate varies, from {1 / steps.max():.3g} to {1 / steps.min():.3g} pictures a second"

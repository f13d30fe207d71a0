"""Boxes of a tracker: text files as MOTChallenge has them, which most trackers write.

A line is a box: frame, track, left, top, width, height, confidence, class, and what else there is.
Commas, semicolons, spaces or tabs separate; only the first six have to be there, and −1 is unknown.
Frames count from 1 on. Left and top are pixels from the picture's corner, of any fraction.

Source: motchallenge.net, "Submission format".
"""

import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dinogrl_jax.data.problems import Problem, raise_if_any
from dinogrl_jax.data.readers.lines import integer, parsed_lines
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import file_words

COLUMNS = ("frame", "track", "left", "top", "width", "height", "confidence", "class")
NEEDED = 6  # of the columns
SIDES = COLUMNS[2:NEEDED]
LARGEST = 1e6  # pixels from the corner
UNKNOWN, IGNORED = -1, 0  # confidences; MOTChallenge says of the second: not to be considered
HEADING = re.compile(r"#.*|\s*[\"']?[A-Za-z][^0-9]*")


class Tracks(NamedTuple):
    """The boxes of a video: n of them, in the order of frames, then of tracks."""

    frame: Int[np.ndarray, " n"]  # of the video's pictures, from 0 on
    track: Int[np.ndarray, " n"]  # the tracker's number of a person
    box: Float[np.ndarray, "n 4"]  # left, top, width, height in pixels
    line: Int[np.ndarray, " n"]  # of the file, from 1 on; 0 where there is none


class _Line(NamedTuple):
    frame: int
    track: int
    box: tuple[float, ...]
    confidence: float
    kind: float  # class


def read_tracks(
    path: str,
    first_frame: int = 1,
    confidence: float = -math.inf,
    classes: tuple[int, ...] = (),
) -> tuple[Tracks, Counter[str]]:
    """The boxes of a file, and how many are left out for which reason.

    first_frame: the number of the video's first picture. confidence: lower ones are left out,
    unknown ones stay. classes: those that are kept, beside boxes of unknown class; all if empty.

    Raises one InputError for all wrong lines, and for a file that has no boxes.
    """
    if words := file_words(path):
        raise InputError(f"{path}: is {words}; its lines have to be {', '.join(COLUMNS[:NEEDED])}")
    problems: list[Problem] = []
    lines = [
        (number, line)
        for number, line in parsed_lines(path, _parse_line, problems, "tracks")
        if line is not None and line != ()
    ]
    problems += _order_problems(lines, first_frame)
    raise_if_any([_words(problem) for problem in problems], path)
    if not lines:
        raise InputError(f"{path}: has no boxes")
    left_out: Counter[str] = Counter()
    kept = []
    for number, line in lines:
        if reason := _reason_to_leave_out(line, confidence, classes):
            left_out[reason] += 1
        else:
            kept.append((line.frame - first_frame, line.track, line.box, number))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{path}: no box is left: {reasons}")
    return tracks_of(kept), left_out


def tracks_of(rows: list[tuple[int, int, tuple[float, ...], int]]) -> Tracks:
    """The boxes of rows of frame, track, box and line, in the order of frames and tracks."""
    frame, track, box, line = zip(*sorted(rows), strict=True)
    return Tracks(np.array(frame), np.array(track), np.array(box, float), np.array(line))


def _parse_line(text: str) -> "_Line | tuple[()]":
    """A line's box; () for a heading. Raises ValueError and InputError for what is neither."""
    if HEADING.fullmatch(text):
        return ()
    words = re.split(r"\s*[,;]\s*" if re.search("[,;]", text) else r"\s+", text)
    while len(words) > NEEDED and not words[-1]:
        words.pop()
    if len(words) < NEEDED:
        wanted = ", ".join(COLUMNS[:NEEDED])
        raise InputError(f"has {len(words)} columns, fewer than {NEEDED}: {wanted}")
    numbers = [_number(word, name) for word, name in zip(words[2:], COLUMNS[2:], strict=False)]
    left, top, width, height, *others = numbers
    if width <= 0 or height <= 0:
        raise InputError(f"has a box of {width:g}×{height:g} pixels: leave it out")
    confidence, kind = (*others, UNKNOWN, UNKNOWN)[:2] if others else (UNKNOWN, UNKNOWN)
    frame, track = integer(words[0]), integer(words[1])
    if track < 0:
        raise InputError(f"has track {track}: these are detections, which a tracker has to link")
    return _Line(frame, track, (left, top, width, height), confidence, kind)


def _number(word: str, name: str) -> float:
    """The number of a column; ValueError if a word is none, or one that no picture has."""
    try:
        value = float("nan" if "_" in word else word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (name in SIDES and abs(value) > LARGEST):
        raise ValueError(
            f"{name} is {word[:40]!r}, no number of pixels" * (name in SIDES)
            or f"{name} is {word[:40]!r}, no number"
        )
    return value


def _order_problems(lines: list[tuple[int, _Line]], first_frame: int) -> list[Problem]:
    """Frames before the first one, and boxes that a track has twice in a frame."""
    problems, seen = [], {}
    for number, line in lines:
        if line.frame < first_frame:
            cure = "; say --first-frame 0 if they count from 0" * (line.frame == 0)
            text = f"has frame {line.frame}, though frames count from {first_frame} on{cure}"
            problems.append(Problem("tracks", text, line=number))
        before = seen.setdefault((line.frame, line.track), number)
        if before != number:
            text = f"has a second box of track {line.track} in frame {line.frame}, as line {before}"
            problems.append(Problem("tracks", text, line=number))
    return problems


def _reason_to_leave_out(line: _Line, confidence: float, classes: tuple[int, ...]) -> str:
    if line.confidence == IGNORED:
        return "not to be considered (confidence 0)"
    if line.confidence != UNKNOWN and line.confidence < confidence:
        return "of a lower confidence"
    if classes and line.kind != UNKNOWN and line.kind not in classes:
        return "of another class"
    return ""


def _words(problem: Problem) -> str:
    return f"line {problem.line}: {problem.text}" if problem.line else problem.text

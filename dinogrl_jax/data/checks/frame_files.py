"""What is wrong or odd with the files of frames, each looked at once."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from dinogrl_jax.data.frames import FrameError, is_record
from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.pictures import check_depth, has_pages, is_deep, opened, orientation
from dinogrl_jax.data.problems import Problem, enumeration
from dinogrl_jax.data.readers.listing import missing_words
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.progress import Progress

FRAME_CHECKS = ("decode", "exist", "none")  # what is done with each frame
CHUNK = 256  # frames that a worker checks before it reports


def frame_problems(
    tracklets: Sequence[Tracklet],
    frame_check: str,
    workers: int,
    upright: bool = False,
    deep: bool = False,
) -> list[Problem]:
    """The problems of the frames' files, each file once, in the order of the tracklets.

    upright: training turns frames as their EXIF orientation says. deep: it takes those of more than
    8 bits a channel.
    """
    if frame_check == "none":
        return []
    frames = list(dict.fromkeys((frame, t.modality) for t in tracklets for frame in t.frames))
    chunks = [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]
    decoding = partial(decoding_problems, upright=upright, deep=deep)
    problems_of = decoding if frame_check == "decode" else missing_frame_problems
    problems: list[Problem] = []
    with Progress("checking frames", len(frames), "frames") as progress:
        found = map_in_processes(problems_of, chunks, workers)
        for chunk, more in zip(chunks, found, strict=True):
            problems += more
            progress.add(len(chunk))
    return problems


def missing_frame_problems(frames: Sequence[tuple[str, str]]) -> list[Problem]:
    return [
        Problem("missing frame", f"{frame} {missing_words(frame)}", frame)
        for frame, _ in frames
        if not is_record(frame) and not os.path.isfile(frame)
    ]


def decoding_problems(
    frames: Sequence[tuple[str, str]], upright: bool = False, deep: bool = False
) -> list[Problem]:
    """Problems of frames that cannot be decoded, or are odd."""
    problems = []
    for frame, modality in frames:
        try:
            problems += oddities(frame, modality, upright, deep)
        except FrameError as error:
            problems.append(Problem(error.kind, str(error), frame))
    return problems


def oddities(frame: str, modality: str, upright: bool, deep: bool) -> list[Problem]:
    """What is odd with a frame: its colours, a rotation, further pages; FrameError if damaged."""
    with opened(frame) as picture:
        pages = has_pages(picture)
        picture.load()
        turned, mode = orientation(picture) != 1, picture.mode
    deep = deep and is_deep(picture)
    if not deep:
        check_depth(frame, picture)
    texts = {}
    if mode in ("L", "LA", "1") and modality == "visible":
        texts["grey image"] = "is grey though its tracklet is visible"
    elif mode not in ("RGB", "L") and not deep:
        texts["colour mode"] = f"is in {mode}, neither RGB nor grey: each read converts it"
    if turned and not upright:
        texts["turned image"] = (
            "is stored turned, viewers turn it by its EXIF orientation: data.exif_rotation=True "
            "does so too"
        )
    if pages:
        texts["many pages"] = "holds more than one picture, the first of which is read"
    return [Problem(kind, f"{frame} {text}", frame, fatal=False) for kind, text in texts.items()]


def repeated_frame_problems(tracklets: Sequence[Tracklet]) -> Iterator[Problem]:
    """Frames that occur more than once: two rows overlap, or a name is listed twice."""
    counts = Counter(frame for tracklet in tracklets for frame in tracklet.frames)
    for tracklet in tracklets:
        repeated = [frame for frame in dict.fromkeys(tracklet.frames) if counts[frame] > 1]
        if repeated:
            text = f"{tracklet} has frames that occur more than once: {enumeration(repeated)}"
            yield Problem("repeated frame", text, fatal=False)

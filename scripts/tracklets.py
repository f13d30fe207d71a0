"""Cut tracklets out of videos by the boxes of a tracker:

    dinogrl_jax tracklets --video cam1.mp4 --tracks cam1.txt --modality visible --camera 1 --out DIR

Tracks are text files as MOTChallenge has them: frame, track, left, top, width, height, confidence,
class. For several videos the options are repeated in the same order, or --list names a file with a
line of JSON for each: {"video": …, "tracks": …, "modality": …, "camera": …, "start": …}. DIR gets
frames, manifest.jsonl, which extract, validate and train read, and sources.jsonl, which says where
and when each tracklet was filmed. --detect finds people without a tracker, for a demo.
"""

import argparse
import math
from pathlib import Path

from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.data.video import detection
from dinogrl_jax.data.video.cutting import MANIFEST, Cut, Cutter
from dinogrl_jax.data.video.decoding import header_count
from dinogrl_jax.data.video.sources import (
    Source,
    checked_sources,
    given_sources,
    listed_sources,
)
from dinogrl_jax.data.video.tracks import Tracks, read_tracks
from dinogrl_jax.interface.arguments import Parser, number, path, whole_number
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import new_folder
from dinogrl_jax.interface.progress import Progress


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add, whole, default = parser.add_argument, whole_number, Cut()
    again = {"action": "append", "default": []}
    add("--video", type=path, **again, help="once for each video; as the options below")
    add("--tracks", type=path, **again, help="the boxes of a tracker in it")
    add("--modality", choices=MODALITIES, **again, help="once, or for each")
    add("--camera", **again, help="a number or a name")
    add("--start", **again, help="when it begins, like 2026-11-28T14:00:00+01:00")
    add("--list", type=path, help="a file with a line of JSON for each video instead")
    add("--out", required=True, type=path, help="folder to make")
    add("--detect", action="store_true", help="a demo: OpenCV's people detector in place of tracks")
    add("--detect-every", type=whole(1), default=2, help="which pictures; default every 2nd")
    add("--first-frame", type=whole(0), default=1, help="number of a video's first; default 1")
    add("--confidence", type=number(), default=-math.inf, help="least of a box; default any")
    add("--class", type=whole(0), **again, dest="classes", help="of boxes to keep; default all")
    add("--stride", type=whole(1), default=default.stride, help="every which box of a track")
    add("--padding", type=number(0, 10), default=default.padding, help="share of a box's sides")
    add("--minimum-width", type=whole(1), default=16, help="pixels of a box; default 16")
    add("--minimum-height", type=whole(1), default=32, help="default 32")
    add("--minimum-frames", type=whole(1), default=1, help="of a tracklet; default 1")
    gap = f"seconds without a box that end a tracklet; default {default.longest_gap:g}"
    add("--longest-gap", type=number(0), default=default.longest_gap, help=gap)
    add("--encode", choices=("jpeg", "png"), default=default.encoding, help="of frames")
    add("--bad", choices=("stop", "skip"), default="stop", help="boxes outside, damaged pictures")
    add("--rate", type=number(1e-3, 1e4), help="pictures a second, instead of the stream's clock")
    add("--as-stored", action="store_true", help="do not turn pictures as players do")
    add("--identities", action="store_true", help="tracks are people, the same in all videos")
    add("--split", choices=("train", "test"), default=default.split, help="default test")
    tests = "with --identities: people of the test, others train, like 3,8"
    add("--test-identities", type=identities, default=frozenset(), help=tests)
    return parser.parse_args()


def identities(text: str) -> frozenset[int]:
    return frozenset(whole_number(0)(word) for word in text.split(","))


def cut_of(options: argparse.Namespace) -> Cut:
    """How to cut; InputError for options that do not go together."""
    if options.test_identities and not options.identities:
        raise InputError("command line: --test-identities needs --identities")
    return Cut(
        options.first_frame,
        options.stride,
        options.padding,
        options.minimum_width,
        options.minimum_height,
        options.minimum_frames,
        options.longest_gap,
        options.encode,
        upright=not options.as_stored,
        skip_bad=options.bad == "skip",
        rate=options.rate,
        identities=options.identities,
        split=options.split,
        test_identities=options.test_identities,
    )


def sources_of(options: argparse.Namespace) -> list[Source]:
    """The videos; InputError where none is said, or some are said in both ways."""
    if bool(options.list) == bool(options.video):
        raise InputError("command line: say --video and its options, or --list FILE")
    if options.list:
        sources = listed_sources(options.list)
    else:
        columns = options.video, options.tracks, options.modality, options.camera, options.start
        sources = given_sources(*columns)
    return checked_sources(sources, options.detect)


def main() -> None:
    options = flags()
    cut, sources = cut_of(options), sources_of(options)
    with new_folder(options.out) as folder:
        cutter = Cutter(folder, cut)
        if options.detect:
            found = [detected(source, cut, options.detect_every) for source in sources]
        else:
            found = [tracked(source, options, cutter) for source in sources]
        boxes = sum(len(tracks.frame) for tracks in found)
        with Progress("cutting", boxes, "boxes") as progress:
            for source, tracks in zip(sources, found, strict=True):
                cutter.add(source, tracks, progress)
        if not cutter.tracklets:
            raise InputError(f"{options.out}: no tracklet is left: {left_out_words(cutter)}")
    for note in cutter.notes:
        print(note)
    if words := left_out_words(cutter):
        print(f"left out: {words}")
    manifest = Path(options.out) / MANIFEST
    print(
        f"{manifest}: {cutter.tracklets} tracklets of {cutter.frames} frames, "
        f"{len(sources)} {'video' if len(sources) == 1 else 'videos'}"
    )


def tracked(source: Source, options: argparse.Namespace, cutter: Cutter) -> Tracks:
    how = options.first_frame, options.confidence, tuple(options.classes)
    tracks, left_out = read_tracks(source.tracks, *how)
    cutter.left_out += left_out
    return tracks


def detected(source: Source, cut: Cut, every: int) -> Tracks:
    pictures = header_count(source.video) // every
    with Progress("detecting", pictures, "pictures") as progress:
        how = {"longest_gap": cut.longest_gap, "rate": cut.rate, "upright": cut.upright}
        return detection.detected_tracks(source.video, progress, every=every, **how)


def left_out_words(cutter: Cutter) -> str:
    words = [f"{count} boxes {reason}" for reason, count in cutter.left_out.items()]
    words += [f"{cutter.short} tracklets of fewer frames"] * bool(cutter.short)
    return ", ".join(words)


if __name__ == "__main__":
    run(main)

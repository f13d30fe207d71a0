"""Search a gallery of tracklets, and add to it:

    dinogrl_jax search --index FOLDER --checkpoint DIR --tracklets MANIFEST_OR_FOLDER
    dinogrl_jax search --index FOLDER --checkpoint DIR --query CLIP --modality infrared

DIR is a run, a model that dinogrl_jax convert made, or the folder of a step of either. The first
command adds tracklets (as dinogrl_jax extract reads them) to the gallery in FOLDER, which is made
if need be; those that are there already are passed over, so that an interrupted command is begun
again. --features adds descriptors of an .npz instead: whoever names --checkpoint with it vouches
that this model made them; without it the file, or --distance, says by which distance they rank.

CLIP is a folder of frames in order of time, or one frame. The command prints the --k nearest
tracklets, exactly ranked by the model's distance, and writes them to --out, one HTML file.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.data.sampling import uniform
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.data.video.cutting import MANIFEST
from dinogrl_jax.data.video.sources import filming_times
from dinogrl_jax.devices import memory
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.command_line import WHICH
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval import feature_file
from dinogrl_jax.retrieval.distances import FORMULAS
from dinogrl_jax.retrieval.feature_file import Features
from dinogrl_jax.retrieval.report.frames import small_jpeg
from dinogrl_jax.retrieval.report.subjects import subject_of_features
from dinogrl_jax.retrieval.store.files import DTYPES
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.retrieval.store.page import result_html, result_text
from dinogrl_jax.retrieval.store.source import Source
from dinogrl_jax.training.api.clips import tracklets_of_clips
from dinogrl_jax.training.api.model import Model, load

AT_ONCE = 512  # tracklets that are added together
QUERY_FRAMES = 3  # on the page


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--index", required=True, type=path, metavar="FOLDER", help="the gallery")
    add("--checkpoint", type=path, help="run, converted model, or step of one")
    add("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--tracklets", type=path, help="to add: a manifest, or a folder of folders")
    one.add_argument("--features", type=path, help="to add: an .npz of descriptors")
    one.add_argument("--query", type=path, metavar="CLIP", help="a folder of frames, or a frame")
    add("--modality", choices=MODALITIES, help="of the query; where a manifest does not say it")
    add("--batch", type=whole_number(1), help="tracklets embedded at a time; default as extract")
    add("--workers", type=whole_number(0), default=0, help="processes that read frames; default 0")
    add("--distance", choices=FORMULAS, help="of descriptors that no model of ours made")
    add("--dtype", choices=DTYPES, help="of a new gallery's descriptors; default float32")
    add(
        "--frames",
        type=path,
        help="folder that paths in --features start from, and whose manifest has times",
    )
    add("--k", type=whole_number(1), default=20, help="tracklets to find; default 20")
    add("--cameras", help="that count, by commas; default all")
    add("--modalities", help="that count, by commas; default both")
    add("--since", help="time from which tracklets count, ISO 8601")
    add("--until", help="time up to which tracklets count")
    add("--out", type=path, default="search.html", help="the page; default search.html")
    return parser.parse_args()


def add_tracklets(gallery: Gallery, model: Model, options: argparse.Namespace) -> int:
    """Add those of a manifest or a folder that are not there yet; how many."""
    listed = manifest.read_tracklets(options.tracklets, options.modality)
    times = filming_times(options.tracklets)
    there = gallery.known(**columns_of(listed, times))
    listed = [one for one, known in zip(listed, there, strict=True) if not known]
    added = 0
    for start in range(0, len(listed), AT_ONCE):
        some = listed[start : start + AT_ONCE]
        made = model.embed_tracklets([tracklet for tracklet, _ in some], options.workers)
        identity = [tracklet.identity for tracklet, _ in some]
        added += gallery.add(made, identity=identity, **columns_of(some, times))
        if len(listed) > AT_ONCE:
            print(f"{min(start + AT_ONCE, len(listed))} of {len(listed)} tracklets", flush=True)
    return added


def columns_of(listed: Sequence[ListedTracklet], times: Mapping[str, float]) -> dict:
    """What tells tracklets apart, as `Gallery.add` and `Gallery.known` take it.

    times: when tracklets began, by their names, where that is known.
    """
    return {
        "time": [times.get(name) for _, name in listed],
        "modality": [tracklet.modality for tracklet, _ in listed],
        "camera": [tracklet.camera for tracklet, _ in listed],
        "frames": [[os.path.abspath(x) for x in tracklet.frames] for tracklet, _ in listed],
        "name": [name for _, name in listed],
    }


def add_features(gallery: Gallery, features: Features, options: argparse.Namespace) -> int:
    """Add the descriptors of a file that are not there yet; how many."""
    folder = options.frames or str(Path(options.features).parent)
    subject = subject_of_features(features, folder)
    listed = Path(folder, MANIFEST)  # what scripts/tracklets.py writes
    times = filming_times(str(listed)) if listed.is_file() else {}
    added = 0
    for start in range(0, len(features.names), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(features.names)))
        added += gallery.add(
            features.embedding[rows.start : rows.stop],
            modality=[subject.modality[i] for i in rows],
            camera=[subject.camera[i] for i in rows],
            identity=[subject.identity[i] for i in rows],
            frames=[subject.frames(i) for i in rows],
            name=[subject.path[i] for i in rows],
            time=[times.get(subject.path[i]) for i in rows],
        )
    return added


class Named(NamedTuple):
    """A model of which no more is here than what a features file says of it."""

    source: Source


def model_of(
    features: Features, options: argparse.Namespace, model: Model | None
) -> Model | Named | None:
    """What made the descriptors of a file: a model, as long as the file names no other.

    Raises InputError where the file and the command line name two.
    """
    if model is None and features.model:
        distance = options.distance or features.distance
        return Named(Source(features.model, features.title, distance))
    if model is not None and features.model not in ("", model.source.fingerprint):
        raise InputError(
            f"{options.features} holds descriptors of another model ({features.title}) than "
            f"--checkpoint ({model.source.title}): leave --checkpoint out, or extract anew"
        )
    return model


def find(gallery: Gallery, model: Model, options: argparse.Namespace) -> None:
    """Print what is nearest to a clip, and write the page."""
    (tracklet,) = tracklets_of_clips([options.query], options.modality)
    words = {name: split(getattr(options, name)) for name in ("cameras", "modalities")}
    (query,) = model.embed_tracklets([tracklet])
    bounds = {"since": options.since, "until": options.until}
    found = gallery.search(query, options.k, **words, **bounds)
    frames = sorted(set(uniform(len(tracklet.frames), QUERY_FRAMES).tolist()))
    pictures = [x for i in frames if (x := small_jpeg(tracklet.frames[i]))]
    asked = [f"{k} {v}" for k, v in {**vars(options)}.items() if k in (*words, *bounds) and v]
    how = ", ".join([f"the nearest of {len(gallery)} tracklets in {options.index}", *asked])
    with atomic_write(Path(options.out)) as file:
        text = result_html(found, gallery.source, options.query, pictures, how)
        file.write(text.encode(errors="replace"))
    print(result_text(found, gallery.source))
    print(f"{options.out}: opens in a browser")


def split(words: str | None) -> list[str] | None:
    return None if words is None else [word.strip() for word in words.split(",")]


def main() -> None:
    options = flags()
    if options.checkpoint is None and not options.features:
        raise InputError("command line: --tracklets and --query need a model, --checkpoint DIR")
    if options.query and options.modality is None:
        raise InputError("command line: --query needs its --modality, visible or infrared")
    memory.keep_freed()
    batch = 1 if options.query else options.batch
    model = load(options.checkpoint, options.which, batch=batch) if options.checkpoint else None
    distance = options.distance
    if options.features:
        features = feature_file.read_features(options.features)
        distance = distance or (None if model else features.distance)
        model = model_of(features, options, model)
    gallery = Gallery.open(options.index, model, distance=distance, dtype=options.dtype)
    if options.query:
        find(gallery, model, options)
        return
    if options.features:
        added = add_features(gallery, features, options)
    else:
        added = add_tracklets(gallery, model, options)
    print(f"{options.index}: {added} tracklets added, {len(gallery)} in all")


if __name__ == "__main__":
    run(main)

"""Seconds of searches that a server answers, one at a time and many at once.

    python benchmarks/serve.py --checkpoint runs/synthetic --tracklets manifest.jsonl
    python benchmarks/serve.py --checkpoint RUN --tracklets manifest.jsonl --count 400 --searches 8

A gallery of `--count` tracklets is mixed from the manifest's, as benchmarks/search.py does it, in
`--folder`, which is removed at the end; scripts/serve.py serves it in a process of its own. Its
clients are threads of this process: each sends the frames of a clip, waits for the answer, and
sends the next. No clip is sent twice, as the server remembers the last ones. Every answer is
compared with the API's: places and distances, ==. *Processor* is what the server worked for a
search, in seconds, without the processes that decode: beside other work it says more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
from search import BATCH, Mixed

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.config_files import ROOT
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.training.api.model import Model, load

HEADS = "| at once | searches | p50 | p99 | a second | processor | same answer |"
K = 20


def filled(folder: Path, model: Model, tracklets: Sequence[Tracklet], count: int) -> Gallery:
    """A gallery of tracklets that are mixed from others."""
    embedding = model.embed_tracklets(tracklets)
    identity = [tracklet.identity for tracklet in tracklets]
    np.savez(folder / "features.npz", embedding=embedding, identity=identity)
    mixed, gallery = Mixed(str(folder / "features.npz")), Gallery.open(folder / "gallery", model)
    for start in range(0, count, BATCH):
        places = np.arange(start, min(start + BATCH, count))
        gallery.add(mixed.rows(places, 0), modality="visible", name=[f"{x}" for x in places])
    return gallery


def distinct_clips(tracklets: Sequence[Tracklet], count: int) -> list[Tracklet]:
    """So many clips: those of tracklets, then the same without their first frame, and so on."""
    clips = []
    for first in range(len(tracklets[0].frames)):
        clips += [x._replace(frames=x.frames[first:]) for x in tracklets if len(x.frames) > first]
    if len(clips) < count:
        raise SystemExit(f"the manifest makes {len(clips)} clips: ask for fewer --searches")
    return clips[:count]


def answered(address: str, clip: Tracklet) -> tuple[float, list[tuple[int, float]]]:
    """Seconds of a search, and what it found."""
    files = [("files", (Path(x).name, Path(x).read_bytes())) for x in clip.frames]
    began = time.perf_counter()
    answer = requests.post(
        f"{address}/search", files=files, data={"modality": clip.modality, "k": K}, timeout=600
    )
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took, [(x["place"], x["distance"]) for x in answer.json()["found"]]


def worked(process: int) -> float:
    """Seconds that processors have worked for a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def print_row(
    server: subprocess.Popen,
    address: str,
    model: Model,
    gallery: Gallery,
    clips: Sequence[Tracklet],
    at_once: int,
) -> None:
    """A line of the table: clips that `at_once` clients ask for."""
    began, before = time.perf_counter(), worked(server.pid)
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda clip: answered(address, clip), clips))
    wall, same = time.perf_counter() - began, 0
    processor = (worked(server.pid) - before) / len(clips)
    for clip, (_, found) in zip(clips, answers, strict=True):
        (query,) = model.embed_tracklets([clip])
        same += found == [(x.place, x.distance) for x in gallery.search(query, K)]
    p50, p99 = np.percentile([took for took, _ in answers], [50, 99])
    share = f"{100 * same / len(clips):.0f} %"
    rate = f"{len(clips) / wall:.1f} | {processor:.3f}"
    print(f"| {at_once} | {len(clips)} | {p50:.3f} | {p99:.3f} | {rate} | {share} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, or converted model")
    add("--tracklets", required=True, help="a manifest")
    add("--count", type=int, default=20_000, help="tracklets of the gallery")
    add("--searches", type=int, default=200, help="in each line of the table")
    add("--clients", type=int, default=8, help="at once, in the second line")
    add("--batch", type=int, default=1, help="clips that are embedded at once")
    add("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    tracklets = [x.tracklet for x in manifest.read_tracklets(options.tracklets)]
    model = load(options.checkpoint, batch=options.batch)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        gallery = filled(Path(folder), model, tracklets, options.count)
        clips = distinct_clips(tracklets, 2 * options.searches + 2)
        words = ("--index", gallery.folder, "--checkpoint", options.checkpoint, "--port", 0)
        command = [sys.executable, ROOT / "scripts/serve.py", *words, "--batch", options.batch]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        server = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            address = next(x.split()[1] for x in server.stdout if "http://" in x).rstrip("/")
            for clip in clips[-2:]:
                answered(address, clip)
            parts, channels = model.embed_tracklets(clips[:1]).shape[1:]
            print(f"{len(gallery):,} tracklets of [{parts}, {channels}]\n\n{HEADS}")
            print("|" + "---|" * HEADS.count(" | ") + "---|")
            print_row(server, address, model, gallery, clips[: options.searches], 1)
            rest = clips[options.searches : -2]
            print_row(server, address, model, gallery, rest, options.clients)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()

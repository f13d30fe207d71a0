"""How fast batches are made, beside Pillow and numpy written the obvious way in PyTorch:

    python benchmarks/benchmark_data.py --out /tmp/benchmark

makes JPEG files of `--height` × `--width` in the new folder, prepares them, and prints frames per
second, and per second of a core, of training batches (decode, resize, augment, normalise): from
folders, from shards, and from a PyTorch DataLoader on the same files where PyTorch is installed.
Then it prints how long an index of HITSZ-VCM's size takes.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax import config as settings
from dinogrl_jax.data import datasets, sampling
from dinogrl_jax.data.pipeline import training_batches
from dinogrl_jax.data.preparation import prepare
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.data.transforms import DEVIATION, ERASED, MEAN, erased_rectangle
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.interface.errors import run

PYTORCH = "PyTorch, obvious"
AUGMENT = {"pad": 10, "flip": 0.5, "erase": 0.5, "channels": True}  # as published
PEOPLE = {"train_identities": 8, "test_identities": 1, "tracklets_per_identity": 4}


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="folder to make; kept, and used again")
    parser.add_argument("--height", type=int, default=288, help="pixels of a file, default 288")
    parser.add_argument("--width", type=int, default=144, help="default 144")
    parser.add_argument("--steps", type=int, default=40, help="batches of 192 frames, default 40")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts, default 3")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default 1 2")
    return parser.parse_args()


def main() -> None:
    options = flags()
    out = Path(options.out)
    config = files(out, options.height, options.width)
    sources = {"folders": ours(config, out / "raw"), "shards": ours(config, out / "prepared")}
    if obvious := torch_loader(config, out / "raw"):
        sources[PYTORCH] = obvious
    print(f"files of {options.height}x{options.width}, batches of 192 frames of 256x128, medians")
    print(f"{'workers':>7}  {'source':18}{'frames/s':>10}{'frames/s of a core':>20}")
    for workers in options.workers:
        found = {name: [] for name in sources}
        for _ in range(options.repeats):  # in turns, so that other load hits all alike
            for name, batches in sources.items():
                found[name].append(rates(batches, options.steps, workers))
        medians = {name: np.median(values, axis=0) for name, values in found.items()}
        for name, (by_clock, by_core) in medians.items():
            print(f"{workers:7}  {name:18}{by_clock:10.0f}{by_core:20.0f}{against(medians, name)}")
    index_of_full_size(out / "index")


def files(out: Path, height: int, width: int) -> ConfigDict:
    """The configuration of a training on the benchmark's files, which are made if need be."""
    config = ConfigDict({**settings.shared(), "augment": AUGMENT})
    if not (out / "raw").exists():
        size = {"frames_per_tracklet": 16, "height": height, "width": width}
        synthetic.generate(out / "raw", seed=0, workers=2, **PEOPLE, **size)
    config.data.root = str(out / "raw")
    if not (out / "prepared").exists():
        prepare(config.data, str(out / "prepared"), workers=0)
    return config


def ours(config: ConfigDict, root: Path) -> Callable:
    """(steps, workers) → an iterator over batches of 192 frames."""
    config = config.copy_and_resolve_references()
    config.data.root = str(root)
    train, _ = datasets.read(config.data)

    def batches(steps: int, workers: int):
        config.data.workers = workers
        with training_batches(train, labels(train), config, steps=steps) as found:
            for batch in found:
                yield batch.frames.shape[0] * 2 * config.data.frames

    return batches


def against(medians: dict[str, np.ndarray], name: str) -> str:
    """How many times as fast as PyTorch a source is, by the clock and by the core's time."""
    if name == PYTORCH or PYTORCH not in medians:
        return ""
    clock, core = medians[name] / medians[PYTORCH]
    return f"   {clock:.2f} and {core:.2f} times {PYTORCH}"


def rates(batches: Callable, steps: int, workers: int) -> tuple[float, float]:
    """Frames per second by the clock, and per second that all processes computed.

    The first is of the steps after the workers' first ones. The second is the difference between
    a long and a short run, without what starting costs; other programs do not change it.
    """
    short = 2 * workers
    began = cpu_seconds()
    sum(batches(short, workers))
    start = cpu_seconds() - began
    began, iterator = cpu_seconds(), batches(short + steps, workers)
    for _ in range(short):
        next(iterator)
    clock = time.perf_counter()
    frames = sum(iterator)
    clock = time.perf_counter() - clock
    return frames / clock, frames / (cpu_seconds() - began - start)


def cpu_seconds() -> float:
    """The time that this process and its ended children have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Obvious:
    """A torch Dataset of clips, with Pillow and numpy, one published transform after the other."""

    def __init__(self, config: ConfigDict, root: Path):
        raw = config.copy_and_resolve_references()
        raw.data.root = str(root)
        self.tracklets, _ = datasets.read(raw.data)
        self.config = config
        self.rng = None

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> np.ndarray:
        rng = np.random.default_rng(index)
        tracklet = self.tracklets[rng.integers(len(self.tracklets))]
        chosen = sampling.one_per_chunk(len(tracklet.frames), self.config.data.frames, rng)
        frames = [self.frame(tracklet.frames[i], rng) for i in chosen]
        if tracklet.modality == "infrared":
            frames = [infrared(frame, rng) for frame in frames]
        elif rng.random() < 0.5:
            frames = [np.stack([frame[rng.integers(3)]] * 3) for frame in frames]
        return np.stack(frames)

    def frame(self, path: str, rng: np.random.Generator) -> np.ndarray:
        h, w, pad = self.config.data.height, self.config.data.width, self.config.augment.pad
        picture = Image.open(path).convert("RGB").resize((w, h), Image.Resampling.BILINEAR)
        array = np.pad(np.asarray(picture), ((pad, pad), (pad, pad), (0, 0)))
        top, left = rng.integers(2 * pad + 1, size=2)
        array = array[top : top + h, left : left + w]
        if rng.random() < 0.5:
            array = array[:, ::-1]
        array = array.astype(np.float32).transpose(2, 0, 1) / 255
        mean, deviation = (x.astype(np.float32)[:, None, None] for x in (MEAN, DEVIATION))
        array = (array - mean) / deviation
        if rng.random() < 0.5 and (box := erased_rectangle(h, w, rng).place):
            array[:, box[0], box[1]] = ERASED[:, None, None]
        return array


def infrared(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    draw = rng.integers(8)
    if draw < 6:
        return np.stack([frame[draw // 2]] * 3)
    if draw == 6:
        return np.stack([0.2989 * frame[0] + 0.5870 * frame[1] + 0.1140 * frame[2]] * 3)
    return frame


def torch_loader(config: ConfigDict, root: Path) -> Callable | None:
    """As `ours`, or None where PyTorch is not installed."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        return None
    dataset = Obvious(config, root)
    clips = 2 * config.data.identities_per_batch * config.data.tracklets_per_identity

    def batches(steps: int, workers: int):
        loader = DataLoader(dataset, clips, num_workers=workers, shuffle=False)
        for _, batch in zip(range(steps), loader, strict=False):
            yield batch.shape[0] * batch.shape[1]

    return batches


def index_of_full_size(folder: Path) -> None:
    """Print what an index of 20,000 tracklets and 460,000 names costs."""
    config = ConfigDict(settings.shared()).data
    if not folder.exists():
        write_index(folder)
    config.root = str(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    train, test = datasets.read(config)
    seconds = time.perf_counter() - began
    names = sum(len(tracklet.frames) for tracklet in [*train, *test])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"index: {len(train) + len(test)} tracklets, {names} names in {seconds:.1f} s, ", end="")
    print(f"{grown / 1024:.0f} MiB more than before")


def write_index(folder: Path) -> None:
    """Info files of HITSZ-VCM's size, 10,000 tracklets of 23 frames a split, without frames."""
    (folder / "info").mkdir(parents=True)
    for split, first in (("train", 1), ("test", 501)):
        names, rows, queries = [], [], []
        for track in range(10_000):
            identity, modality, camera = first + track // 20, 1 + track % 2, 1 + track % 12
            rows.append(f"{modality} {len(names) + 1} {len(names) + 23} {identity:04d} {camera}")
            prefix = f"{identity:04d}M{modality}D{camera}T{track}F"
            names += [f"{prefix}{frame}.jpg" for frame in range(1, 24)]
            queries += [str(track + 1)] if modality == 1 else []
            (folder / split.title() / f"{identity:04d}").mkdir(parents=True, exist_ok=True)
        (folder / "info" / f"{split}_name.txt").write_text("\n".join(names))
        (folder / "info" / f"track_{split}_info.txt").write_text("\n".join(rows))
    (folder / "info" / "query_IDX.txt").write_text(" ".join(queries))


if __name__ == "__main__":
    run(main)

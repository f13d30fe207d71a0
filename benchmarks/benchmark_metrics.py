"""Time, memory and agreement of the metrics against the published loops.

    python benchmarks/benchmark_metrics.py                  # HITSZ-VCM's size, both directions
    python benchmarks/benchmark_metrics.py --large          # 1,000 queries × 100,000 from a file

The published way (GitHub yyj-001/DinoGRL, core/test.py and tools/eval_metrics.py), written anew for
NumPy: each direction computes its own matrix, part by part, from float64 features (its buffers
are `np.zeros`) of shape [n, 256, 70] into a float32 sum, argsorts all rows, and walks through all
ranked lists in Python. Feature extraction, which the published code also repeats for each
direction, is not counted. Seconds are wall clock, medians of `--rounds` in which both take turns;
`cpu` is what all threads of the process used. Programs come from the compilation cache where it
has them.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from dinogrl_jax.devices.compiling import keep_compiled
from dinogrl_jax.devices.memory import keep_freed

PARTS, WIDTH, CAMERAS, PER_IDENTITY = 70, 256, 12, 12


def descriptors(identity: np.ndarray, out: np.ndarray, seed: int) -> np.ndarray:
    """48 latent factors of identity and view, mixed into all parts, and noise: fills `out`."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    mix = shared.standard_normal((48, PARTS * WIDTH), np.float32) / 48**0.5
    who = shared.standard_normal((10_000, 48), np.float32)
    for start in range(0, len(identity), 512):
        rows = slice(start, start + 512)
        view = 1.3 * own.standard_normal((len(identity[rows]), 48), np.float32)
        noise = 0.3 * own.standard_normal((len(view), PARTS * WIDTH), np.float32)
        out[rows] = ((who[identity[rows]] + view) @ mix + noise).reshape(-1, PARTS, WIDTH)
    return out


def published_distances(query, gallery, total):
    """Of [n, d, p], as published, into `total`."""
    for part in range(PARTS):
        a, b = query[:, :, part], gallery[:, :, part]
        squared = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None, :] - 2 * np.matmul(a, b.T)
        total += np.sqrt(np.maximum(squared, 0))
    return total / PARTS


def published_figures(distance, qi, gi, qc, gc, walk, sort):
    """CMC to rank 20, mAP and mINP (not in the published code, nearly free)."""
    order = np.argsort(distance, axis=1, kind=sort)
    matches = (gi[order] == qi[:, None]).astype(np.int32)
    cmc, ap, inp = [], [], []
    for i in range(len(distance)):
        hits = matches[i][~((gi[order[i]] == qi[i]) & (gc[order[i]] == qc[i]))]
        if hits.any():
            first = hits.argmax()
            cmc.append(np.arange(20) >= first)
            ap.append((walk(hits.cumsum()) * hits).sum() / hits.sum())
            inp.append(hits.sum() / (len(hits) - hits[::-1].argmax()))
    return np.append(np.mean(cmc, 0), (np.mean(ap), np.mean(inp)))


def in_python(found):
    return np.asarray([x / (i + 1.0) for i, x in enumerate(found)])


def in_numpy(found):
    return found / np.arange(1.0, len(found) + 1)


class Clock:
    """Wall and CPU seconds since the last call, and the peak of anonymous and all memory."""

    def __init__(self):
        self.lap()

    def lap(self) -> tuple[float, float]:
        now = time.perf_counter(), time.process_time()
        took = tuple(b - a for a, b in zip(getattr(self, "last", now), now, strict=True))
        self.last = now
        return took


class Memory(threading.Thread):
    """Samples this process's resident memory: peak GiB over the start, anonymous and with files."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_at = np.array(self.now())
        self.peak = self.start_at
        self.start()

    @staticmethod
    def now() -> tuple[float, float]:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        return kib["RssAnon"] / 2**20, kib["VmRSS"] / 2**20

    def run(self):
        while True:
            self.peak = np.maximum(self.peak, self.now())
            time.sleep(0.02)

    def over_start(self):
        return self.peak - self.start_at


def row(name: str, *columns) -> None:
    cells = (f"{wall:7.2f} ({cpu:6.2f} cpu)" for wall, cpu in columns)
    print(f"| {name:46} | {' | '.join(cells)} |", flush=True)


def ids(count: int, gallery: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Identities, of about 12 gallery tracklets each as in HITSZ-VCM's test set, and cameras."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, gallery // PER_IDENTITY, count), rng.integers(0, CAMERAS, count)


def loops(q, g, qids, gids, accumulate, walk, sort):
    """The published way in both directions: figures, and seconds of distances and of ranking."""
    clock, spent, out = Clock(), np.zeros((2, 2)), []
    for a, b, (ai, ac), (bi, bc) in ((q, g, qids, gids), (g, q, gids, qids)):
        distance = published_distances(a, b, np.zeros((len(a), len(b)), accumulate))
        spent[0] += clock.lap()
        out.append(published_figures(distance, ai, bi, ac, bc, walk, sort))
        spent[1] += clock.lap()
    return np.array(out), spent


# dtype of the features, order of their axes, dtype of the sum, precision at hits, sort
PUBLISHED = np.float64, "ndp", np.float32, in_python, None
EASIER = {
    "parts before widths in memory": (np.float64, "npd", np.float32, in_python, None),
    "the same, float32 features": (np.float32, "npd", np.float32, in_python, None),
    "the same, float64 sum, stable sort": (np.float64, "npd", np.float64, in_python, "stable"),
    "the same, precision without a list": (np.float64, "npd", np.float64, in_numpy, "stable"),
}


def in_memory(x: np.ndarray, dtype, order: str) -> np.ndarray:
    """[n, p, d] as [n, d, p], whose last axis is contiguous or, for "npd", the middle one."""
    if order == "ndp":
        return np.ascontiguousarray(x.transpose(0, 2, 1), dtype)
    return x.astype(dtype, copy=False).transpose(0, 2, 1)


def published_size(queries: int, gallery: int, rounds: int) -> None:
    from dinogrl_jax.retrieval.gallery import descriptor_set
    from dinogrl_jax.retrieval.metrics import both_directions

    qids, gids = ids(queries, gallery, 1), ids(gallery, gallery, 2)
    q = descriptors(qids[0], np.empty((queries, PARTS, WIDTH), np.float32), 3)
    g = descriptors(gids[0], np.empty((gallery, PARTS, WIDTH), np.float32), 4)
    print(f"{queries} × {gallery} of [{PARTS}, {WIDTH}], both directions, seconds")
    print(f"| {'':46} | {'together':>20} | {'distances':>20} | {'ranking':>20} |", flush=True)

    def timed() -> tuple[tuple[float, float], np.ndarray]:
        clock = Clock()
        results = both_directions(descriptor_set(q, *qids), descriptor_set(g, *gids))
        return clock.lap(), np.array([np.append(r.cmc, (r.mAP, r.mINP)) for r in results])

    memory = Memory()
    first, figures = timed()
    row("dinogrl_jax, first call", first)
    peak = memory.over_start()[1]
    dtype, order, *how = PUBLISHED
    sides = [in_memory(x, dtype, order) for x in (q, g)]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed()[0])
        row("dinogrl_jax", ours[-1])
        found, spent = loops(*sides, qids, gids, *how)
        theirs.append(spent.sum(0))
        row("loops, as published", theirs[-1], *spent)
        ours.append(timed()[0])
        row("dinogrl_jax", ours[-1])
    ours = np.median(ours, 0)

    def compare(found, spent) -> None:
        wall, cpu = spent / ours
        print(f"  {wall:.1f} times as long as dinogrl_jax's median, processor time {cpu:.1f} times")
        print(f"  largest difference of a figure: {np.abs(found - figures).max():.1e}", flush=True)

    row("medians: dinogrl_jax", ours)
    row("medians: loops, as published", np.median(theirs, 0))
    compare(found, np.median(theirs, 0))
    del sides
    for name, (dtype, order, *how) in EASIER.items():
        found, spent = loops(*(in_memory(x, dtype, order) for x in (q, g)), qids, gids, *how)
        row(f"loops, {name}", spent.sum(0), *spent)
        compare(found, spent.sum(0))
    print("rank-1, mAP, mINP of both directions:", figures[:, [0, 20, 21]].round(4).tolist())
    print(f"peak memory over the features: {peak:.2f} GiB")


def large(queries: int, gallery: int, folder: Path) -> None:
    from dinogrl_jax.retrieval.gallery import descriptor_set
    from dinogrl_jax.retrieval.metrics import one_direction

    file = folder / "gallery.npy"
    for count in (gallery // 4, gallery // 2, gallery):
        qids, gids = ids(queries, count, 1), ids(count, count, 2)
        shape = (count, PARTS, WIDTH)
        descriptors(gids[0], np.lib.format.open_memmap(file, "w+", np.float32, shape), 4).flush()
        q = descriptors(qids[0], np.empty((queries, PARTS, WIDTH), np.float32), 3)
        g = np.load(file, mmap_mode="r")
        memory, clock = Memory(), Clock()
        result = one_direction(descriptor_set(q, *qids), descriptor_set(g, *gids))
        wall, cpu = clock.lap()
        anonymous, everything = memory.over_start()
        print(
            f"{queries} × {count}: {wall:.1f} s ({cpu:.1f} cpu), mAP {result.mAP:.4f}, "
            f"peak {anonymous:.2f} GiB, with pages of the mapped file {everything:.2f} GiB",
            flush=True,
        )
    print(f"process peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--gallery", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    keep_freed()
    keep_compiled()
    if args.large:
        with tempfile.TemporaryDirectory() as folder:
            large(args.queries or 1000, args.gallery or 100_000, Path(folder))
    else:
        published_size(args.queries or 4584, args.gallery or 5099, args.rounds)


if __name__ == "__main__":
    main()

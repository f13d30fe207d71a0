"""Time, memory and agreement of the metrics against the published loops.

    python scripts/benchmark_metrics.py                  # HITSZ-VCM's size, both directions
    python scripts/benchmark_metrics.py --large          # 1,000 queries × 100,000 from a file

The published way (GitHub yyj-001/DinoGRL, core/test.py and tools/eval_metrics.py), written anew for
NumPy: each direction computes its own matrix, part by part, from float64 features (its buffers
are `np.zeros`) into a float32 sum, argsorts all rows, and walks through every ranked list in
Python. The descriptors are [n, 70, 256] here and [n, 256, 70] there, which spares the loops strided
reads. Feature extraction, which the published code also repeats for each direction, is not
counted. Seconds are wall clock; `cpu` is what all threads of the process used.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

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
    for part in range(PARTS):
        a, b = query[:, part], gallery[:, part]
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


def row(name: str, distances, ranking) -> None:
    total = np.add(distances, ranking)
    cells = (f"{wall:7.2f} ({cpu:6.2f} cpu)" for wall, cpu in (distances, ranking, total))
    print(f"| {name:48} | {' | '.join(cells)} |", flush=True)


def ids(count: int, gallery: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Identities, of about 12 gallery tracklets each as in HITSZ-VCM's test set, and cameras."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, gallery // PER_IDENTITY, count), rng.integers(0, CAMERAS, count)


def loops(q, g, qids, gids, dtype, accumulate, walk, sort, name):
    """The published way in both directions, timed."""
    clock, spent, out = Clock(), np.zeros((2, 2)), []
    q, g = q.astype(dtype, copy=False), g.astype(dtype, copy=False)
    clock.lap()
    for a, b, (ai, ac), (bi, bc) in ((q, g, qids, gids), (g, q, gids, qids)):
        distance = published_distances(a, b, np.zeros((len(a), len(b)), accumulate))
        spent[0] += clock.lap()
        out.append(published_figures(distance, ai, bi, ac, bc, walk, sort))
        spent[1] += clock.lap()
    row(name, *spent)
    return np.array(out), spent.sum(0)


def published_size(queries: int, gallery: int) -> None:
    from dinogrl_jax.gallery import tracklets
    from dinogrl_jax.metrics import both_ways

    qids, gids = ids(queries, gallery, 1), ids(gallery, gallery, 2)
    q = descriptors(qids[0], np.empty((queries, PARTS, WIDTH), np.float32), 3)
    g = descriptors(gids[0], np.empty((gallery, PARTS, WIDTH), np.float32), 4)
    print(f"{queries} × {gallery} of [{PARTS}, {WIDTH}], both directions, seconds")
    print(f"| {'':48} | {'distances':>20} | {'ranking':>20} | {'both':>20} |", flush=True)
    memory, clock, ours = Memory(), Clock(), []
    for call in ("first call, with compilation", "second call"):
        clock.lap()
        results = both_ways(tracklets(q, *qids), tracklets(g, *gids))
        ours.append(clock.lap())
        row(f"dinogrl_jax, {call}", ours[-1], (0, 0))
    peak = memory.over_start()
    ours_figures = np.array([np.append(r.cmc, (r.mAP, r.mINP)) for r in results])
    variants = (
        (np.float64, np.float32, in_python, None, "loops, as published"),
        (np.float32, np.float32, in_python, None, "loops, float32 features"),
        (np.float64, np.float64, in_python, "stable", "loops, float64 sum, stable sort"),
        (np.float64, np.float64, in_numpy, "stable", "the same, precision without a list"),
    )
    for *how, name in variants:
        figures, spent = loops(q, g, qids, gids, *how, name)
        ratio = ", ".join(f"{spent[0] / o[0]:.1f} ({spent[1] / o[1]:.1f} cpu)" for o in ours)
        print(f"  times slower than first, second call: {ratio}")
        print(f"  largest difference of a figure: {np.abs(figures - ours_figures).max():.1e}")
    clock.lap()
    both_ways(tracklets(q, *qids), tracklets(g, *gids))
    row("dinogrl_jax again, for the load in between", clock.lap(), (0, 0))
    print("rank-1, mAP, mINP of both directions:", ours_figures[:, [0, 20, 21]].round(4).tolist())
    print(f"peak memory over the features: {peak[1]:.2f} GiB")


def large(queries: int, gallery: int, folder: Path) -> None:
    from dinogrl_jax.gallery import tracklets
    from dinogrl_jax.metrics import one_way

    file = folder / "gallery.npy"
    for count in (gallery // 4, gallery // 2, gallery):
        qids, gids = ids(queries, count, 1), ids(count, count, 2)
        shape = (count, PARTS, WIDTH)
        descriptors(gids[0], np.lib.format.open_memmap(file, "w+", np.float32, shape), 4).flush()
        q = descriptors(qids[0], np.empty((queries, PARTS, WIDTH), np.float32), 3)
        g = np.load(file, mmap_mode="r")
        memory, clock = Memory(), Clock()
        result = one_way(tracklets(q, *qids), tracklets(g, *gids))
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
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if args.large:
        with tempfile.TemporaryDirectory() as folder:
            large(args.queries or 1000, args.gallery or 100_000, Path(folder))
    else:
        published_size(args.queries or 4584, args.gallery or 5099)


if __name__ == "__main__":
    main()

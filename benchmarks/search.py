"""Seconds, memory and exactness of the search in a gallery on disk, against comparing all.

    python benchmarks/search.py                               # normal numbers, which nothing prunes
    python benchmarks/search.py --descriptors features.npz    # mixed from those of a model
    python benchmarks/search.py --count 4000 --queries 2      # a quick look

A gallery of `--count` tracklets is filled in `--folder`, which is removed at the end; at a quarter,
at a half and at the end, queries that are not in it ask for their 50 nearest. *All compared* is a
jitted search in float32 that reads the same file from the page cache, in as many threads: the
faster of two programs, measured on the first blocks. Both take turns; medians count. Seconds are by
the clock, and in brackets those that processors worked: beside other work the second say more.

--descriptors: an .npz of dinogrl_jax extract. People are mixed from it: of two identities' means
and of two tracklets' deviations from their means, as cos · one + sin · other at random angles, so
that the variances, and how parts go together, are those of the file.
"""

import argparse
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dinogrl_jax.devices.compiling import keep_compiled
from dinogrl_jax.retrieval.store import database, files
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.retrieval.store.ranking import Comparison

PARTS, CHANNELS, K, EACH = 70, 256, 50, 12  # EACH: tracklets of an identity
BLOCK, BATCH = 1024, 1000
HEADS = "| tracklets | opening | search | descriptors read | all compared | ratio | same answer |"
ROOM = 1.4  # times what descriptors take: what has to be free


def normal_rows(places: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, int(places[0])])
    return rng.standard_normal((len(places), PARTS, CHANNELS), np.float32)


class Mixed:
    """Descriptors of people who are mixed from those of a file."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            embedding, identity = arrays["embedding"].astype(np.float32), arrays["identity"]
        _, number = np.unique(identity, return_inverse=True)
        centres = np.stack([embedding[number == i].mean(0) for i in range(number.max() + 1)])
        self.own, self.mean = embedding - centres[number], embedding.mean(0)
        self.centres = centres - self.mean

    def rows(self, places: np.ndarray, seed: int) -> np.ndarray:
        """Those at places: whose identity is the place's EACH-th part."""
        found = np.empty((len(places), *self.mean.shape), np.float32)
        for row, place in zip(found, places, strict=True):
            who, how = (np.random.default_rng(x) for x in ([1, place // EACH], [seed, place]))
            row[:] = self.mean + mixture(self.centres, who) + mixture(self.own, how)
        return found


def mixture(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    a, b = rng.integers(len(rows), size=2)
    angle = rng.uniform(0, np.pi / 2)
    return np.float32(np.cos(angle)) * rows[a] + np.float32(np.sin(angle)) * rows[b]


@jax.jit
def by_reduction(query, rows):
    return jnp.sqrt(jnp.square(rows - query).sum(2)).mean(1)


@jax.jit
def by_products(query, rows):
    def add_part(p, total):
        part = jax.lax.dynamic_index_in_dim(rows, p, 1, keepdims=False) - query[p]
        return total + jnp.sqrt(jnp.square(part) @ jnp.ones(part.shape[1]))

    parts = rows.shape[1]
    return jax.lax.fori_loop(0, parts, add_part, jnp.zeros(len(rows))) / parts


def compared_with_all(program: Callable, stored, file: int, query, count: int) -> np.ndarray:
    """The places of the 50 nearest, by float32 distances to all."""
    distance = np.empty(count, np.float32)

    def fill(start: int) -> None:
        start = max(0, min(start, count - BLOCK))
        block = stored.block(file, start, min(start + BLOCK, count))
        distance[start : start + len(block)] = np.asarray(program(query, block))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, count, BLOCK)))
    nearest = np.argpartition(distance, min(K, count) - 1)[:K]
    return nearest[np.argsort(distance[nearest], kind="stable")]


class Took(NamedTuple):
    """Seconds by the clock, and those that processors worked for this process."""

    clock: float
    processor: float

    def __str__(self) -> str:
        return f"{self.clock:.3f} ({self.processor:.3f})"


def timed(call: Callable) -> tuple[Took, object]:
    began = time.perf_counter(), time.process_time()
    made = call()
    return Took(time.perf_counter() - began[0], time.process_time() - began[1]), made


def measured(gallery: Gallery, queries: np.ndarray) -> dict[str, Any]:
    """Medians of both searches, which take turns, and in how many queries they agree."""
    opening, _ = timed(lambda: len(Gallery.open(gallery.folder)))
    with database.connection(gallery.folder) as base:
        at = database.stored(base)
    stored, read = files.DescriptorFile(gallery.folder, at), []
    improved, near = Comparison.improved, Comparison.near

    def counted(self, found, places):
        read.append(len(places))
        return improved(self, found, places)

    def all_counted(self, count):
        read.append(count)
        return near(self, count)

    with stored.opened() as file:
        search = partial(compared_with_all, stored=stored, file=file, count=at.count)
        few = partial(search, query=queries[0], count=min(at.count, 8 * BLOCK))
        for program in (by_reduction, by_products):
            few(program)
        program = min((by_reduction, by_products), key=lambda x: timed(lambda: few(x))[0])
        gallery.search(queries[0], K)
        search(program, query=queries[0])
        times, same = [], 0
        Comparison.improved, Comparison.near = counted, all_counted
        for query in queries:
            ours, found = timed(lambda query=query: gallery.search(query, K))
            everyone, places = timed(lambda query=query: search(program, query=query))
            times.append((ours, everyone))
            same += [x.place for x in found] == places.tolist()
        Comparison.improved, Comparison.near = improved, near
    ours, everyone = (Took(*x) for x in np.median(times, 0))
    return {
        "tracklets": at.count,
        "opening": opening,
        "search": ours,
        "read": sum(read) / len(queries),
        "all": everyone,
        "ratio": [b / a for a, b in zip(ours, everyone, strict=True)],
        "same": same / len(queries),
    }


class Searching(threading.Thread):
    """Searches until it is told to end."""

    def __init__(self, gallery: Gallery, query: np.ndarray) -> None:
        super().__init__(daemon=True)
        self.gallery, self.query, self.count = gallery, query, 0
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.is_set():
            self.gallery.search(self.query, K)
            self.count += 1


def batches(rows: Callable, first: int, last: int) -> Iterator[np.ndarray]:
    for start in range(first, last, BATCH):
        yield rows(np.arange(start, min(start + BATCH, last)), 2)


def table_row(x: dict[str, Any]) -> str:
    clock, processor = x["ratio"]
    return (
        f"| {x['tracklets']:,} | {x['opening']} | {x['search']} | {x['read']:,.0f} | {x['all']} | "
        f"{clock:.1f} ({processor:.1f}) | {100 * x['same']:.0f} % |"
    )


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--descriptors", help="an .npz of dinogrl_jax extract")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--dtype", choices=files.DTYPES, default="float32")
    return parser.parse_args()


def main() -> None:
    options = flags()
    keep_compiled()
    rows = Mixed(options.descriptors).rows if options.descriptors else normal_rows
    shape = rows(np.arange(1), 2).shape[1:]
    size = files.row_dtype(options.dtype).itemsize * shape[0] * shape[1] * options.count
    os.makedirs(options.folder, exist_ok=True)
    if shutil.disk_usage(options.folder).free < ROOM * size:
        raise SystemExit(f"{options.folder}: {ROOM * size / 2**30:.1f} GiB have to be free")
    spread = np.linspace(0, options.count - 1, options.queries).astype(int)
    queries = rows(spread // 4, 3)  # of people who are there from the first quarter on
    folder = tempfile.mkdtemp(prefix="search_", dir=options.folder)
    try:
        run(options, rows, queries, Path(folder) / "gallery", shape)
    finally:
        shutil.rmtree(folder)


def run(options, rows: Callable, queries: np.ndarray, folder: Path, shape) -> None:
    gallery = Gallery.open(folder, distance="part_euclidean", dtype=options.dtype)
    found, first, times = [], 0, []
    what = options.descriptors or "normal numbers"
    print(f"{what}, {list(shape)}, {options.dtype}, {os.cpu_count()} processors, top {K}\n")
    print(f"{HEADS}\n|{'---|' * 7}", flush=True)
    for last in (options.count // 4, options.count // 2, options.count):
        for some in batches(rows, first, last):
            times.append(timed(lambda some=some: gallery.add(some, modality="visible"))[0])
        first = last
        found.append(measured(gallery, queries))
        print(table_row(found[-1]), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sizes = [x["tracklets"] for x in found]
    for name, key in (("search", "search"), ("all compared", "all")):
        lines = [
            np.polyfit(sizes, column, 1) for column in zip(*(x[key] for x in found), strict=True)
        ]
        took = Took(*(float(np.polyval(line, 1_000_000)) for line in lines))
        print(f"\n{name}, 1,000,000 by a line through the three: {took} s")
    searching = Searching(gallery, queries[0])
    searching.start()
    more = rows(np.arange(options.count, options.count + BATCH), 2)
    adding, _ = timed(lambda: gallery.add(more, modality="visible"))
    searching.end.set()
    searching.join()
    middle, most = (Took(*f(times, 0)) for f in (np.median, np.max))
    print(f"\nadding {BATCH}: {middle} s, at most {most} s; ", end="")
    print(f"beside {searching.count} searches {adding.clock:.2f} s by the clock")
    print(f"peak memory of all of it, mapped pages and --descriptors included: {peak:.2f} GiB")


if __name__ == "__main__":
    main()

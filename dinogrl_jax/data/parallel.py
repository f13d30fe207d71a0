"""Work that is spread over processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def map_in_processes(function: Callable, items: Iterable, workers: int) -> Iterator[Any]:
    """`function` of each item, in order, computed by `workers` processes (0 or 1: by this one).

    The caller's script has to guard its main block with `if __name__ == "__main__"`.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    # Processes are spawned because a forked copy of a process that runs JAX can hang.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(function, items)

"""Work that is spread over processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from dinogrl_jax.interface.errors import InputError


def map_in_processes(function: Callable, items: Iterable, workers: int) -> Iterator[Any]:
    """`function` of each item, in order, computed by `workers` processes (0 or 1: by this one).

    The caller's script has to guard its main block with `if __name__ == "__main__"`.

    Raises InputError where a worker was killed.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    # Processes are spawned because a forked copy of a process that runs JAX can hang.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, initializer=follow_parent) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, as it happens where memory is short: lower --workers"
            ) from error


def follow_parent(at_end: Callable[[], object] = lambda: None) -> None:
    """Set a worker up to end when its parent wants it, or has been killed, but not at Ctrl-C.

    Ctrl-C reaches all processes of a terminal; the parent finishes what it does first.

    at_end: called where the parent has been killed.
    """

    def end_after_parent() -> None:
        multiprocessing.parent_process().join()
        at_end()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_after_parent, daemon=True).start()

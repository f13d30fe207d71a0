"""The machine of a benchmark: its rate of matrix products, and what a call takes beside it."""

import contextlib
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dinogrl_jax.training import checkpoint


class Spread(NamedTuple):
    """Of several runs."""

    median: float
    least: float
    most: float
    runs: int


class Timed(NamedTuple):
    """Seconds of a call, and the machine's rate in between, operations a second.

    The same per second that all threads of the process computed, which other programs change less.
    alone: seconds from one call to its result, where `seconds` are of calls in a row.
    """

    seconds: Spread
    alone: Spread
    rate: float
    computed: Spread
    computed_rate: float

    def described(self, operations: float | None) -> dict:
        """As JSON; with shares of the machine's rate where the operations are known."""
        cpu = jax.default_backend() == "cpu"
        found = {"seconds": self.seconds._asdict(), "matmul_rate": self.rate}
        if cpu:
            found["processor_seconds"] = self.computed._asdict()
        else:
            found["alone"] = self.alone._asdict()
        if operations is not None:
            found |= {"operations": operations}
            found["share"] = operations / self.seconds.median / self.rate
            if cpu:
                found["processor_share"] = operations / self.computed.median / self.computed_rate
        return found


IN_A_ROW = 8


class Machine:
    """The rate of matrix products of a type, best of several sizes, and of copying.

    An accelerator makes IN_A_ROW calls before the last one is waited for, of products and of what
    is measured: so do training and extraction, whose host prepares a call while the one before
    runs.

    runs, seconds: of each measurement, at least.
    """

    def __init__(self, dtype: jnp.dtype, runs: int, seconds: float) -> None:
        self.runs, self.seconds = runs, seconds
        cpu = jax.default_backend() == "cpu"
        self.in_a_row = 1 if cpu else IN_A_ROW
        sizes = (512, 1024, 2048) if cpu else (4096, 8192, 16384)
        self.by_size = {}
        for n in sizes:
            calls = self._calls(n, dtype)
            calls()
            self.by_size[n] = spread([calls()[0] for _ in range(runs)]).median
        best = max(self.by_size, key=self.by_size.get)
        self.probe = self._calls(best, dtype)
        self.copied = self._copied(2**28 if cpu else 2**32)

    def _calls(self, n: int, dtype: jnp.dtype) -> Callable[[], np.ndarray]:
        """Operations a second, by both clocks, of enough products of that size to be timed.

        As many go before, uncounted: right after a large program they are slower by up to a third.
        """
        a, b = jax.random.normal(jax.random.key(0), (2, n, n)).astype(dtype)
        count = max(round(4e10 / n**3), self.in_a_row)
        product = jax.jit(jnp.matmul).lower(a, b).compile()  # kept where caches are cleared

        def rates() -> np.ndarray:
            for _ in range(2):
                began = clocks()
                for _ in range(count):
                    made = product(a, b)
                jax.block_until_ready(made)
            return count * 2 * n**3 / (clocks() - began)

        return rates

    @staticmethod
    def _copied(size: int) -> float:
        """Bytes read and written a second."""
        x = jnp.zeros(size // 4, jnp.float32)
        copy = jax.jit(lambda x: x + 1, donate_argnums=0)
        seconds = []
        for _ in range(6):
            began = time.perf_counter()
            x = jax.block_until_ready(copy(x))
            seconds.append(time.perf_counter() - began)
        return 2 * size / spread(seconds[1:]).median

    def timed(self, call: Callable[[], Any]) -> Timed:
        """A call that has been made before, in turns with the matrix products."""

        def of(calls: int) -> np.ndarray:
            began = clocks()
            for _ in range(calls):
                made = call()
            jax.block_until_ready(made)
            return (clocks() - began) / calls

        took, rates, end = [], [self.probe()], time.perf_counter() + self.seconds
        while len(took) < self.runs or time.perf_counter() < end:
            took.append(of(self.in_a_row))
            rates.append(self.probe())
        alone = took if self.in_a_row == 1 else [of(1) for _ in took]
        seconds, computed = (spread(list(x)) for x in np.transpose(took))
        rate, computed_rate = np.median(rates, axis=0).tolist()
        return Timed(seconds, spread([x[0] for x in alone]), rate, computed, computed_rate)

    def described(self) -> dict:
        return {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "system": platform.platform(),
            "versions": checkpoint.versions(),
            "matmul_rates": {str(n): rate for n, rate in self.by_size.items()},
            "matmul_rate": max(self.by_size.values()),
            "copied": self.copied,
        }


def spread(values: list[float]) -> Spread:
    return Spread(*(float(f(values)) for f in (np.median, np.min, np.max)), len(values))


def clocks() -> np.ndarray:
    """Seconds of the clock, and seconds that all threads of the process have computed."""
    return np.array([time.perf_counter(), time.process_time()])


def reset_peak() -> None:
    """Begin the host's peak anew, where Linux lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def host_peak() -> int:
    """Most bytes of memory that the process had at once since `reset_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_peak() -> int | None:
    """Most bytes of a device's memory since the start; None where the backend does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()

"""What a process keeps of the memory that it freed, and what it gives back. For Linux's glibc."""

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from dinogrl_jax.interface.errors import InputError

MOST_MAPPINGS, TRIMMED_FROM = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h


def keep_freed() -> None:
    """What a step frees serves the next one; to be called before JAX is used otherwise.

    Else a training step on a CPU has the system bring 4 GiB, page by page, and set them to zero.
    The first thread computes then, which alone has a heap that grows as far as it has to.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MOST_MAPPINGS, 0)  # large arrays are in the heap as well
        mallopt(TRIMMED_FROM, -1)  # never
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def give_back() -> None:
    """What was freed until now is the system's again: after compiling, a GiB."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def shortage_named(advice: str) -> Iterator[None]:
    """Where the block runs out of a device's or of this machine's memory: InputError, advice."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).partition("\n")[0][:160]
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in reason:
            raise
        raise InputError(f"memory is too small ({reason or 'MemoryError'}): {advice}") from error


def available() -> int:
    """Bytes that this process can still have: of the machine, its container and its own limit."""
    bounds = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        bounds.append(1024 * int(lines["MemAvailable"].split()[0]))
    with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no number
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{x}").read_text()) for x in ("max", "current"))
        stat = dict(x.split() for x in (group / "memory.stat").read_text().splitlines())
        bounds.append(most - used + int(stat["inactive_file"]))  # which the system drops
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bounds.append(limit - pages * resource.getpagesize())
    return max(min(bounds), 0)

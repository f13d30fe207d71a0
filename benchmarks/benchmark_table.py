"""What a benchmark found: as a table, and compared with what it found before."""

import os
from collections.abc import Iterator
from typing import Any

GIB, GIGA = 2**30, 1e9


def print_machine(machine: dict) -> None:
    rates = ", ".join(f"{n}: {r / GIGA:.0f}" for n, r in machine["matmul_rates"].items())
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['devices']} × "
        f"{machine['device']}, load {os.getloadavg()[0]:.1f}\n"
        f"products, 10⁹ operations/s: {rates}; copied {machine['copied'] / GIGA:.1f} GB/s\n"
        f"{'':26}{'seconds (least…most)':>28}{'10⁹':>10}{'10⁹/s':>8}{'limit':>8}{'share':>8}"
        f"{'processor':>11}",
        flush=True,
    )


def print_result(name: str, found: Any) -> None:
    """A line for each measurement, and one for each further group of figures."""
    if not isinstance(found, dict):
        print(f"{name:26}{found:10.3f}", flush=True)
    elif "matmul_rate" in found:
        s = found["seconds"]
        time_taken = f"{s['median']:.3f} ({s['least']:.3f}…{s['most']:.3f})"
        print(f"{name:26}{time_taken:>28}{columns(found)}")
        if "alone" in found:
            print(f"  alone: {found['alone']['median']:.3f} s from a call to its result")
        for group in ("compilation", "compiled_bytes", "memory"):
            if group in found:
                print(f"  {group}: {line(found[group])}")
        if "frames" in found:
            print(f"  frames: {found['frames']}, {found['frames_per_second']:.2f} a second")
    elif "median" in found:
        print(f"{name:26}{found['median']:10.3f} ({found['least']:.3f}…{found['most']:.3f})")
    else:
        for key, value in found.items():
            print_result(f"{name} {key}", value)


def columns(found: dict) -> str:
    """Operations, and shares of the machine's rate, where they are known."""
    rate = f"{found['matmul_rate'] / GIGA:8.0f}"
    if "share" not in found:
        return f"{'':18}{rate}"
    operations = found["operations"] / GIGA
    processor = f"{found['processor_share']:.1%}" if "processor_share" in found else ""
    done = f"{operations:10.1f}{operations / found['seconds']['median']:8.0f}"
    return f"{done}{rate}{found['share']:8.1%}{processor:>11}"


def line(group: dict) -> str:
    """Seconds and bytes in words."""
    told = (
        f"{key} {value / GIB:.2f} GiB" if isinstance(value, int) else f"{key} {value:.1f} s"
        for key, value in group.items()
        if value is not None
    )
    return ", ".join(told)


def difference(before: dict, after: dict) -> str:
    """Why two results cannot be compared: another model, batch or type. Empty if they can."""
    for key, value in before["setup"].items():
        if after["setup"].get(key) != value:
            return f"made with another {key}: {value}"
    return ""


def compared(before: dict, after: dict, margin: float) -> int:
    """1 if a share that both have is worse than the margin allows, else 0; prints them."""
    old, new, worse = dict(shares(before["results"])), dict(shares(after["results"])), 0
    for name in (name for name in old if name in new):
        lost = new[name] < (1 - margin) * old[name]
        worse += lost
        print(f"{name:26}{old[name]:8.1%} → {new[name]:.1%}{'  worse' if lost else ''}")
    print(f"{worse} worse by more than {margin:.0%}")
    return 1 if worse else 0


def shares(found: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The shares of the limit in a result, by the path of keys that leads to each."""
    for key, value in found.items():
        if key == "share":
            yield prefix, value
        elif isinstance(value, dict):
            yield from shares(value, f"{prefix}.{key}" if prefix else key)

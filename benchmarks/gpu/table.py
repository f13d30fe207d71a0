"""The tables of docs/performance.md from what `benchmarks/gpu.sh` found:

    python benchmarks/gpu/table.py found.jsonl

A program's time is the median of its rounds. Its share is the published arithmetic a second over
the card's rate of products, which is measured in turns with those of `main`. Memory is the most
that PyTorch's allocator had at once; for ours what XLA lays out: arguments, results and
temporaries. "As fast" compares with the fastest of the original's programs of the same group that
do the same, and without one with the first of ours.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path


def tables(lines: list[dict]) -> Iterator[str]:
    """Lines of Markdown for the card and for each group of a call."""
    for line in lines:
        if "commit" in line:
            small = ", rehearsed in small" if line["rehearsed"] else ""
            yield f"{line['card'] or 'no card'}, commit {line['commit'][:9]}{small}"
        if "rates" in line:
            rates = ", ".join(f"{n}: {rate / 1e12:.3g}" for n, rate in line["rates"].items())
            yield (
                f"{line['device']}; products of {line['program']['dtype']}, TFLOP/s: {rates}; "
                f"copied {line['copied'] / 1e12:.3g} TB/s; {versions(lines)}"
            )
    rate = median([line for line in lines if "rate" in line], "rate")
    for group in dict.fromkeys(line["group"] for line in lines if "group" in line):
        own = [line for line in lines if line.get("group") == group]
        yield from ("", *table(group, own, rate))


def versions(lines: list[dict]) -> str:
    found = next((line["versions"] for line in lines if "versions" in line), {})
    torch = next(({"torch": line["torch"]} for line in lines if "torch" in line), {})
    return ", ".join(f"{name} {version}" for name, version in (found | torch).items())


def table(group: str, lines: list[dict], rate: float | None) -> Iterator[str]:
    known = {line["built"]: line for line in lines if "built" in line}
    runs = {name: [x for x in lines if x.get("ran") == name] for name in known}
    runs = {name: found for name, found in runs.items() if found and name != "limits"}
    if runs:
        yield f"| {group} | ms, least…most | as fast | share | memory | compiled |"
        yield "|---|---|---|---|---|---|"
    for name, found in runs.items():
        program = known[name]["program"]
        seconds = [x["seconds"] for x in found]
        faster = compared(program, known, runs) / statistics.median(seconds)
        share = share_of(program, known, statistics.median(seconds), rate)
        yield (
            f"| {name} | {1e3 * statistics.median(seconds):.3g}, {1e3 * min(seconds):.3g}…"
            f"{1e3 * max(seconds):.3g} | {faster:.2f}× | {share} | {memory(known[name], found)} "
            f"| {known[name]['compilation']:.0f} s |"
        )
    for line in lines:
        if "check" in line:
            yield f"{' '.join(line['check'])}: {'passed' if line['passed'] else 'NOT passed'}"
            yield from [] if line["passed"] else line.get("told", [line.get("why")])
        for what in ("skipped", "failed"):
            if what in line:
                yield f"{what}: {line[what]}: {line['why']}"


def median(lines: list[dict], key: str) -> float | None:
    return statistics.median(line[key] for line in lines) if lines else None


def alike(program: dict) -> tuple:
    """What two programs have in common that do the same."""
    return program["what"], program["frames"]


def compared(program: dict, known: dict, runs: dict) -> float:
    """Median seconds of what a program is compared with."""
    same = [name for name in runs if alike(known[name]["program"]) == alike(program)]
    medians = {name: median(runs[name], "seconds") for name in same}
    originals = [x for name, x in medians.items() if known[name]["program"]["who"] == "original"]
    return min(originals, default=medians[same[0]])


def share_of(program: dict, known: dict, seconds: float, rate: float | None) -> str:
    """Of the products' rate; the operations of the original are those that ours says."""
    operations = next(
        (
            line["operations"]
            for line in known.values()
            if "operations" in line and alike(line["program"]) == alike(program)
        ),
        None,
    )
    return f"{operations / seconds / rate:.1%}" if operations and rate else ""


def memory(known: dict, found: list[dict]) -> str:
    peak = max(x.get("device_peak") or 0 for x in found)
    if known["program"]["who"] == "original":
        return f"{peak / 1e9:.1f} GB" if peak else ""
    return f"{(known['held'] + known['temporaries']) / 1e9:.2f} GB"


def calls(lines: list[dict]) -> list[list[dict]]:
    """The lines of each call of the script, which begins with the commit."""
    starts = [i for i, line in enumerate(lines) if "commit" in line] + [len(lines)]
    return [lines[first:last] for first, last in zip(starts, starts[1:], strict=False)]


def main() -> None:
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print("\n\n".join("\n".join(tables(call)) for call in calls(lines)))


if __name__ == "__main__":
    main()

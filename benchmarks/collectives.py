"""What devices send each other in a compiled step, read from the compiler's text."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b([a-z]+\d*)\w*\[([\d,]*)\]")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
LOOP = re.compile(r" while\(.*?condition=%?([\w.-]+), body=%?([\w.-]+)")
CALLED = re.compile(r"(?:calls|to_apply|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)")
CONSTANT = re.compile(r"= s(?:32|64)\[\]\S* constant\((\d+)\)")


class Collective(NamedTuple):
    """Arrays that devices exchange at once, as they are afterwards."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]  # bytes, of each
    times: int  # in a step
    operation: str = ""  # of the model, where the (first) arrays are from


def collectives(text: str) -> list[Collective]:
    """Every collective of a compiled program; those in loops with all their turns.

    text: `as_text()` of what `jax.jit(…).lower(…).compile()` returns. The pieces into which a
    compiler divides one to hide it behind other work have a channel in common, and are one.
    """
    bodies, entry = computations(text)
    found = {}
    for name, times in turns(bodies, entry).items():
        for number, line in enumerate(bodies[name]):
            if match := COLLECTIVE.search(line):
                arrays = ARRAY.findall(match[1])
                if match[3] and match[2] != "all-reduce":
                    arrays = arrays[len(arrays) // 2 :]  # the first half are the operands
                shapes = tuple(tuple(map(int, filter(None, a[1].split(",")))) for a in arrays)
                sizes = tuple(
                    math.prod(shape) * bits(array[0]) // 8
                    for shape, array in zip(shapes, arrays, strict=True)
                )
                channel = re.search(r"channel_id=(\d+)", line)
                key = int(channel[1]) if channel else (name, number)
                before = found[key].times if key in found else 0
                operation = re.search(r'op_name="([^"]*)"', line)
                found[key] = Collective(
                    match[2],
                    shapes,
                    sizes,
                    max(times, before),
                    operation[1] if operation else "",
                )
    return list(found.values())


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the first one to run."""
    bodies, entry, name = {}, "", ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[2]
            bodies[name] = []
            entry = name if match[1] else entry
        elif name:
            bodies[name].append(line)
    return bodies, entry


def turns(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs in a step."""
    found = {}

    def visit(name: str, times: int) -> None:
        found[name] = found.get(name, 0) + times
        for line in bodies[name]:
            for called, often in called_by(line, bodies):
                visit(called, times * often)

    visit(entry, 1)
    return found


def called_by(line: str, bodies: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """(computation, how often) of a line; a loop counts from 0 to the constant of its condition."""
    if match := LOOP.search(line):
        ends = CONSTANT.findall("\n".join(bodies[match[1]]))
        yield match[2], max(map(int, ends), default=1)
    for match in CALLED.finditer(line):
        for name in match[1].split(", "):
            if name.lstrip("%") in bodies:
                yield name.lstrip("%"), 1


def bits(dtype: str) -> int:
    """The width of a number: of "f32", "bf16", "pred", …"""
    width = re.search(r"\d+", dtype)
    return int(width[0]) if width else 8


class Sizes(NamedTuple):
    """What tells apart the arrays that are sent."""

    matrices: set[tuple[int, ...]]  # shapes of parameters, sorted, without ones
    vectors: set[int]  # sizes of biases, scales and statistics
    axes: set[int]  # devices, and of all and of one: tracklets, parts, channels of embeddings


def sizes(variables: Any, axes: set[int]) -> Sizes:
    """Of the variables that training applies (arrays or their shapes)."""
    shapes = [squeezed(leaf.shape) for leaf in jax.tree.leaves(variables)]
    vectors = {math.prod(shape) for shape in shapes if len(shape) < 2}
    return Sizes({tuple(sorted(s)) for s in shapes if len(s) > 1}, vectors, axes)


def carried(shape: tuple[int, ...], known: Sizes) -> str:
    """What an array is: "parameters" (also gradients), "statistics", "embeddings" or "other".

    An activation of frames has rows and columns, or is far longer than anything here.
    """
    shape = squeezed(shape)
    if tuple(sorted(shape)) in known.matrices:
        return "parameters"
    if shape and shape[0] in known.axes:  # gathered as [devices, rows of each, …]
        joined = (math.prod(shape[:2]), *shape[2:])
        if tuple(sorted(joined)) in known.matrices:
            return "parameters"
    if len(shape) < 2 and math.prod(shape) <= max(known.vectors | known.axes):
        return "statistics"
    if math.prod(shape) in known.vectors or math.prod(shape) <= 8:
        return "statistics"
    if len(shape) <= 3 and set(shape) <= known.axes:
        return "embeddings"
    return "other"


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)

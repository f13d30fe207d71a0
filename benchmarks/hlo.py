"""The kernels of a program that XLA compiled for a GPU, read from the compiler's text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from collectives import ARRAY, bits, computations

NO_KERNEL = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all"}
NO_KERNEL |= {"opt-barrier", "partition-id", "replica-id", "add-dependency"}
LIBRARIES = {"fmha": "attention", "conv": "convolutions", "matmul": "products", "gemm": "products"}
LOOPS = {"dot": "products", "convolution": "convolutions", "scatter": "scatters", "sort": "sorts"}
LOOPS |= {"reduce": "sums", "reduce-window": "sums"}
LOOPS |= {"transpose": "transpositions", "copy": "copies"}
PARTIAL = {"slice", "dynamic-slice", "gather"}  # read as much of the first operand as they return


class Kernel(NamedTuple):
    """What a GPU starts at once."""

    kind: str  # products, sums, elementwise, …
    bytes: int  # that it reads and writes
    flops: float  # of its matrix products and convolutions
    times: int  # that it runs


class Instruction(NamedTuple):
    """A line of the compiler's text."""

    name: str
    type: str  # f32[2,3]{1,0}, or several in parentheses
    code: str  # fusion, custom-call, while, …
    operands: list[str]  # names; of a parameter its number
    rest: str
    root: bool

    @property
    def bytes(self) -> int:
        """The size of what it returns, without the scratch space of a library's kernel."""
        scratch = ("u8", "s8") if self.code == "custom-call" and self.type[0] == "(" else ()
        arrays = ARRAY.findall(self.type)
        return sum(math.prod(axes(a[1])) * bits(a[0]) // 8 for a in arrays if a[0] not in scratch)

    @property
    def shape(self) -> list[int]:
        """Of the first array that it returns."""
        return axes(ARRAY.search(self.type)[2])


def axes(numbers: str) -> list[int]:
    """The numbers of "2,3"."""
    return [int(number) for number in re.findall(r"\d+", numbers)]


def instruction(line: str) -> Instruction | None:
    """A line, if it is an instruction."""
    line = re.sub(r"/\*.*?\*/", "", line)
    form = r"\s*(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, |$)(.*)"
    if not (found := re.match(form, line)):
        return None
    root, name, type_, code, operands, rest = found.groups()
    named = [operands] if code == "parameter" else re.findall(r"%([\w.-]+)", operands)
    return Instruction(name, type_, code, named, rest, bool(root))


def kernels(text: str) -> Iterator[Kernel]:
    """Every kernel of a compiled program.

    text: `as_text()` of what `jax.jit(…).lower(…).compile()` returns. Of an array that a kernel
    slices, gathers from or updates in place, the part counts; scratch space does not.
    """
    lines, entry = computations(text)
    bodies = {name: [i for i in map(instruction, body) if i] for name, body in lines.items()}

    def of(name: str, times: int) -> Iterator[Kernel]:
        known = {one.name: one for one in bodies[name]}
        for one in bodies[name]:
            called = re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", one.rest)
            if one.code == "while":
                turns = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', one.rest)
                yield from of(called[0], times * int(turns[1] if turns else 1))
            elif one.code in ("call", "async-start"):
                yield from of(called[0], times)
            elif one.code not in NO_KERNEL and not one.code.endswith("-done"):
                inner = bodies[called[0]] if one.code == "fusion" else []
                inside = {line.name: line for line in inner} or known
                flops = sum(multiplied(line, inside) for line in inner or [one])
                yield Kernel(kind(one, inner), moved(one, known, inner), flops, times)

    return of(entry, 1)


def moved(one: Instruction, known: dict[str, Instruction], inner: list[Instruction]) -> int:
    """Bytes that a kernel reads and writes; inner: the lines of a fusion."""
    if one.code == "fusion":
        inside = {line.name: line for line in inner}
        given = {int(line.operands[0]): line.name for line in inner if line.code == "parameter"}
        total = sum(written(line, inside) for line in inner if line.root)
        shares = {}  # an array that is given twice is still one
        for number, name in enumerate(one.operands):
            shares[name] = shares.get(name, 0) + read(given[number], inner, known[name].bytes)
        return total + sum(min(size, known[name].bytes) for name, size in shares.items())
    if one.code in PARTIAL:
        return 2 * one.bytes
    if one.code == "dynamic-update-slice":
        return 2 * known[one.operands[1]].bytes
    return one.bytes + sum(known[name].bytes for name in set(one.operands))


def read(name: str, inner: list[Instruction], size: int) -> int:
    """Bytes of a value of a fusion that are read, size at most."""
    total = 0
    for line in inner:
        if name not in line.operands or line.code == "parameter":
            continue
        if line.code == "bitcast":
            total += read(line.name, inner, size)
        elif line.code in PARTIAL and line.operands[0] == name:
            total += line.bytes
        elif line.code != "dynamic-update-slice" or line.operands[0] != name:
            return size
    return min(total, size)


def written(line: Instruction, inside: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes for one of its values."""
    if line.code == "tuple":
        return sum(written(inside[name], inside) for name in line.operands)
    if line.code == "bitcast":
        return written(inside[line.operands[0]], inside)
    return inside[line.operands[1]].bytes if line.code == "dynamic-update-slice" else line.bytes


def kind(one: Instruction, inner: list[Instruction]) -> str:
    """What a kernel does, in a word."""
    target = re.search(r'custom_call_target="([^"]*)"', one.rest)
    for word, found in LIBRARIES.items():
        if target and word in target[1]:
            return found
    codes = {line.code for line in inner} | {one.code}
    for code, found in LOOPS.items():
        if code in codes:
            return found
    return "elementwise"


def multiplied(line: Instruction, known: dict[str, Instruction]) -> float:
    """Floating-point operations of a product or convolution, 2 for a multiplication and addition.

    Those with a border's zeros count; what is no product has none here.
    """
    target = re.search(r'custom_call_target="([^"]*)"', line.rest)
    code = target[1] if target else line.code
    if code == "dot" or "matmul" in code or "gemm" in code.lower():
        found = re.search(r'lhs_contracting_dim\w+"?[=:][\[{]([^\]}]*)', line.rest)
        left = known[line.operands[0]].shape
        return 2.0 * math.prod(line.shape) * math.prod(left[axis] for axis in axes(found[1]))
    if "fmha" in code:
        keys = known[line.operands[1]].shape
        return 4.0 * math.prod(line.shape) * keys[1]
    if "conv" in code and (labels := re.search(r"dim_labels=\w+_(\w+)->", line.rest)):
        x, kernel, y = (known[line.operands[0]].shape, known[line.operands[1]].shape, line.shape)
        if "BackwardFilter" in code:
            kernel, y = y, kernel
        if "BackwardInput" in code:
            y = x
        return 2.0 * math.prod(y) * math.prod(kernel) / kernel[labels[1].index("o")]
    return 0.0

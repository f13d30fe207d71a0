"""PyTorch state dict → variables and back, by path rules (`rules`), strictly.

Every key, every target, every shape and dtype has to be accounted for; all that is not is
collected into one error, and what was done into one report.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files.torch_types import printable
from dinogrl_jax.weights.rules import Dropped, Layout, Rule, fields_of_name, filled_template

NO_RULE, MISSING = "no rule takes it", "is missing"
LONGEST_LIST = 30  # reasons in a message; the others are counted


class Move(NamedTuple):
    """One tensor that a rule carried over or dropped."""

    rule: Rule | Dropped
    key: str
    path: str  # "" where dropped
    size: int


class Report(NamedTuple):
    """What a conversion did, tensor by tensor."""

    name: str
    moves: list[Move]
    beside: Sequence[str] = ()  # names in the file of what is no part of the model
    remark: str = ""  # what people have to know of the file


class ConversionError(InputError):
    """Everything that is wrong with a conversion; `problems` are pairs of key or path and reason.

    The message says a reason once for all keys that it is of. found: what the
    file holds instead, if that is known.
    """

    def __init__(self, name: str, problems: Sequence[tuple[str, str]], found: str | None = None):
        self.problems = tuple(dict.fromkeys(problems))
        first = {reason: where for where, reason in reversed(self.problems)}
        lines = []
        for reason, count in Counter(reason for _, reason in self.problems).items():
            others = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"{printable(first[reason])}{others}: {reason}")
        if len(lines) > LONGEST_LIST:
            lines[LONGEST_LIST:] = [f"and {len(lines) - LONGEST_LIST} more reasons"]
        found = f"it holds {found}; " if found else ""
        super().__init__(f"{name}: cannot be converted: {found}" + "; ".join(lines))


class _Problem(Exception):
    """The reason why one tensor cannot be converted."""


def to_variables(
    state: Mapping[str, np.ndarray],
    rules: Sequence[Rule | Dropped],
    target_shapes: Mapping,
    *,
    source_name: str,
) -> tuple[dict, Report]:
    """Variables with the structure of `target_shapes`, whose leaves have a shape and a dtype.

    A narrower floating type is widened; a wider one is taken if no value changes, as where float32
    weights were saved as float64. The arrays own their memory.

    Raises ConversionError for a key without exactly one rule, a target that is not filled exactly
    once, another shape or dtype, values that are NaN or infinite: for all of them together.
    """
    targets = flatten_dict(target_shapes, sep="/")
    values, moves, problems, not_finite = {}, [], [], {}
    for key, array in state.items():
        try:
            rule, fields = _single_rule((rule, rule.match_key(key)) for rule in rules)
            if isinstance(rule, Dropped):
                like = state.get(rule.like, array)  # whose absence is another problem
                _check_shape(array.shape, like.shape if rule.shape is None else rule.shape)
                moves.append(Move(rule, key, "", array.size))
                continue
            for path in (filled_template(template, fields) for template in rule.paths):
                if path not in targets:
                    raise _Problem(f"the model has no {path}")
                if path in values:
                    raise _Problem(f"another key fills {path} as well")
                values[path] = _converted(array, rule.layout, targets[path])
                not_finite[key] = count_not_finite(values[path])
                moves.append(Move(rule, key, path, array.size))
        except _Problem as problem:
            problems.append((key, str(problem)))
    refused = {key for key, _ in problems}
    missing = [_reason_of_missing(path, rules) for path in targets if path not in values]
    problems += [(where, reason) for where, reason in missing if where not in refused]
    if count := sum(not_finite.values()):
        problems += [(key, reason_of(count)) for key, there in not_finite.items() if there]
    if problems:
        raise ConversionError(source_name, problems)
    every = flatten_dict(target_shapes, keep_empty_nodes=True, sep="/")  # {} stays where it is
    return unflatten_dict({**every, **values}, sep="/"), Report(source_name, moves)


def to_state(
    variables: Mapping, rules: Sequence[Rule | Dropped], *, name: str = "variables"
) -> tuple[dict[str, np.ndarray], Report]:
    """The state dict that `to_variables` takes, with the initial values of what is dropped.

    Its arrays may be views of the variables.

    Raises ConversionError for a variable without exactly one rule, a shape that its layout cannot
    be, and a key that is written with two values.
    """
    places = [rule for rule in rules if isinstance(rule, Rule)]
    state, moves, problems = {}, [], []
    for path, value in flatten_dict(variables, sep="/").items():
        try:
            rule, fields = _single_rule((rule, rule.match_path(path)) for rule in places)
            key = filled_template(rule.key, fields)
            array = _in_torch_layout(rule.layout, np.asarray(value))
            if key in state and not np.array_equal(state[key], array, equal_nan=True):
                raise _Problem(f"differs from another value of {key}")
            state[key] = array
            moves.append(Move(rule, key, path, array.size))
        except _Problem as problem:
            problems.append((path, str(problem)))
    for rule, key in _dropped_keys(rules, state):
        if key in state:
            problems.append((key, "is written and dropped"))
        if rule.like and rule.like not in state:
            continue  # which is a problem already
        state[key] = rule.initial(state[rule.like] if rule.like else rule.shape)
        moves.append(Move(rule, key, "", state[key].size))
    if problems:
        raise ConversionError(name, problems)
    return state, Report(name, moves)


def check_finite(variables: Mapping, source_name: str) -> None:
    """Raise InputError where variables are NaN or infinite: the first by name, and how many are."""
    counts = {
        path: count_not_finite(np.asarray(value))
        for path, value in flatten_dict(variables, sep="/").items()
    }
    wrong = [path for path, count in counts.items() if count]
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        reason = reason_of(sum(counts.values()))
        raise InputError(f"{source_name}: {wrong[0]}{others}: {reason}")


def count_not_finite(array: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    return array.size - int(np.count_nonzero(np.isfinite(array)))


def reason_of(not_finite: int) -> str:
    """Why weights with so many values that are NaN or infinite are refused."""
    values = "value is" if not_finite == 1 else "values are"
    return f"{not_finite:,} {values} NaN or infinite, as of a training that diverged"


def report_lines(report: Report) -> list[str]:
    """What went where: a line with the totals, then one for each rule."""
    groups: dict[Rule | Dropped, list[Move]] = {}
    for move in report.moves:
        groups.setdefault(move.rule, []).append(move)
    kept = [move.size for move in report.moves if move.path]
    dropped = len(report.moves) - len(kept)
    width = max((len(rule.key) for rule in groups), default=0)
    lines = [f"{report.name}: {len(kept)} tensors, {sum(kept):,} numbers; {dropped} dropped"]
    for rule, moves in groups.items():
        place = f"{rule.layout.name:8}  {' and '.join(rule.paths)}" if moves[0].path else "dropped"
        size = sum(move.size for move in moves)
        lines.append(f"{len(moves):5} {size:12,}  {rule.key:{width}}  {place}")
    lines += [line_of_beside(report)] * bool(report.beside)
    return lines + [report.remark] * bool(report.remark)


def line_of_beside(report: Report) -> str:
    """How many tensors of the file are left out as no part of the model, and the first of them."""
    first = ", ".join(printable(name) for name in report.beside[:4])
    more = ", …" if len(report.beside) > 4 else ""
    return f"{len(report.beside):5} beside the model, left out: {first}{more}"


def _single_rule(matches: Iterable[tuple]) -> tuple[Rule | Dropped, dict[str, str]]:
    found = [(rule, fields) for rule, fields in matches if fields is not None]
    if not found:
        raise _Problem(NO_RULE)
    if len(found) > 1:
        raise _Problem("several rules take it: " + ", ".join(rule.key for rule, _ in found))
    return found[0]


def _check_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(wanted):
        raise _Problem(f"has shape {tuple(shape)}, the model takes {tuple(wanted)}")


def _converted(array: np.ndarray, layout: Layout, target: Any) -> np.ndarray:
    empty = np.broadcast_to(np.int8(0), target.shape)  # a shape that takes no memory
    _check_shape(array.shape, _in_torch_layout(layout, empty).shape)
    # ml_dtypes' floats have the kind V.
    if array.dtype != target.dtype and {array.dtype.kind, target.dtype.kind} - {"f", "V"}:
        raise _Problem(f"has dtype {array.dtype}, the model takes {target.dtype}")
    with np.errstate(over="ignore"):
        converted = np.array(layout.from_torch(array), target.dtype, order="C")
    if not np.can_cast(array.dtype, target.dtype):
        back = layout.to_torch(converted).astype(array.dtype)
        if not np.array_equal(back, array, equal_nan=True):
            raise _Problem(f"has dtype {array.dtype}, with values that {target.dtype} lacks")
    return converted


def _in_torch_layout(layout: Layout, array: np.ndarray) -> np.ndarray:
    try:
        return layout.to_torch(array)
    except ValueError:
        raise _Problem(f"shape {array.shape} of the model cannot be {layout.name}") from None


def _reason_of_missing(path: str, rules: Sequence[Rule | Dropped]) -> tuple[str, str]:
    for rule in rules:
        if isinstance(rule, Rule) and (fields := rule.match_path(path)) is not None:
            return filled_template(rule.key, fields), MISSING
    return path, "no rule fills it"


def _dropped_keys(rules: Sequence[Rule | Dropped], state: Mapping) -> list[tuple[Dropped, str]]:
    """Each dropped rule and the keys it writes; counters may stand beside dropped statistics."""
    dropped = [r for r in rules if isinstance(r, Dropped) and (r.like or r.shape is not None)]
    keys = [(rule, rule.key) for rule in dropped if not rule.beside]
    present = [*state, *(key for _, key in keys)]
    for rule in dropped:
        matches = (fields_of_name(rule.beside, key, rule.key) for key in present if rule.beside)
        keys += [(rule, filled_template(rule.key, each)) for each in matches if each is not None]
    return keys

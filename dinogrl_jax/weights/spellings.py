"""A model's tensors in a file, whatever its owner calls them and whatever stands around them.

People publish one model in many spellings: behind prefixes (`model.`, `teacher.backbone.`), beside
heads, copies and optimisers, by other names (Hugging Face, timm), in other pieces. `read` gives the
names that the rules of the published file take; conversion itself stays strict.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.files.state_dicts import named_tensors
from dinogrl_jax.weights.files.torch_types import LARGEST_EXPANDED, printable
from dinogrl_jax.weights.other_names import BEFORE, SPELLINGS, TURNED
from dinogrl_jax.weights.rules import Dropped, Rule, fields_of_name, filled_template, pattern_of_any

DEEPEST_PREFIX = 8  # components
# Of several copies of a model, those behind a component like these are not the one to take.
COPY = re.compile(r"student|(.*_)?(ema|swa|averaged)(_.*)?|(encoder|key)_k|.*momentum.*|target_.*")
# Modules beside or on a backbone, which it does without.
HEADS = re.compile(
    r"(fc|head|heads|classifier|classification_head|linear_head|dino_head|ibot_head|pooler|"
    r"bottleneck|neck|bnneck|projector|projection_head|predictor|prototypes|queue|queue_ptr)(\.|$)"
)


class Found(NamedTuple):
    """A model in a file."""

    state: dict[str, np.ndarray]  # by the names that its rules take
    beside: list[str]  # names of the file that are of other modules, and are left out


def read(path: str | Path, rules: Sequence[Rule | Dropped]) -> Found:
    """The tensors of the model that rules describe; where none are found, all that the file has.

    Raises InputError for a file that cannot be read, or that holds the model several times.
    """
    with errors_naming(path):
        content = torch_files.opened(Path(path))
        tensors = named_tensors(content.tree)
        names, beside = published_names(list(tensors), rules)
        used = {name: tensors[name] for sources in names.values() for name in sources}
        arrays = {
            name: array.T if TURNED.fullmatch(name) and array.ndim == 2 else array
            for name, array in torch_files.arrays(content, used).items()
        }
        pieces = {key: [arrays[name] for name in sources] for key, sources in names.items()}
        return Found(respelt_values(joined(pieces, content.size)), beside)


def without_prefix(
    state: dict[str, np.ndarray], rules: Sequence[Rule | Dropped]
) -> dict[str, np.ndarray]:
    """A state dict whose names fit rules behind a prefix that all of them have; otherwise as it is.

    Nothing stands beside it, and no name is respelt.
    """
    counts = explained(state, rules)
    prefix = max(counts, key=counts.__getitem__, default="")
    if not all(key.startswith(prefix) for key in state):
        return state
    return {key.removeprefix(prefix): array for key, array in state.items()}


def published_names(
    names: Iterable[str], rules: Sequence[Rule | Dropped]
) -> tuple[dict[str, list[str]], list[str]]:
    """The names that rules take, each with those of its pieces in the file; and all other names.

    Of all spellings the one counts of which rules explain the most names behind one prefix.

    Raises InputError where several prefixes have the model, or several names are one.
    """
    names, best = list(names), ({}, Counter())
    for spelling in SPELLINGS:
        template = BEFORE + spelling.mark
        if spelling.mark and all(fields_of_name(template, name) is None for name in names):
            continue
        respelt = {name: spelling.respelt(name) for name in names}
        counts = explained((key for key, _ in respelt.values()), rules)
        if not best[0] or max(counts.values(), default=0) > max(best[1].values(), default=0):
            best = respelt, counts
    respelt, counts = best
    most_of_rules = sum(isinstance(rule, Rule) for rule in rules) // 2
    prefix = _prefix_of_model(Counter({p: n for p, n in counts.items() if n > most_of_rules}))
    return _divided(respelt, prefix, rules)


def explained(names: Iterable[str], rules: Sequence[Rule | Dropped]) -> Counter[str]:
    """For each prefix how many names behind it are a rule's."""
    places = [rule for rule in rules if isinstance(rule, Rule)]
    pattern = pattern_of_any(places)
    divisions = (division for name in names if places for division in _divisions(name))
    return Counter(prefix for prefix, rest in divisions if pattern.fullmatch(rest))


def _divisions(name: str) -> Iterator[tuple[str, str]]:
    """A name as a prefix, "" or some of its first components, and the rest."""
    yield "", name
    for part in list(re.finditer(r"\.", name))[:DEEPEST_PREFIX]:
        yield name[: part.end()], name[part.end() :]


def _prefix_of_model(counts: Counter[str]) -> str:
    """The prefix behind which most of a model is; a copy of it counts if there is nothing else."""
    originals = {p: n for p, n in counts.items() if not any(map(COPY.fullmatch, p.split(".")))}
    most = max(counts.values(), default=0)
    if max(originals.values(), default=0) * 2 < most:
        originals = counts
    most = max(originals.values(), default=0)
    found = [prefix for prefix, count in originals.items() if count == most]
    if len(found) > 1:
        places = printable(" and ".join(f"{prefix}*" for prefix in found[:4]))
        raise InputError(f"holds the model {len(found)} times, as {places}: save one of them alone")
    return found[0] if found else ""


def _divided(
    respelt: Mapping[str, tuple[str, int]], prefix: str, rules: Sequence[Rule | Dropped]
) -> tuple[dict[str, list[str]], list[str]]:
    pieces: dict[str, dict[int, str]] = {}
    beside = []
    for name, (key, piece) in respelt.items():
        inside = key.startswith(prefix)
        key = key.removeprefix(prefix)
        if not inside or _is_head(key, rules):
            beside.append(name)
            continue
        taken = pieces.setdefault(key, {})
        other = taken.setdefault(piece, name)
        if other != name:
            raise InputError(f"{printable(other)}: is {printable(key)}, as {printable(name)} is")
    return {key: [taken[n] for n in sorted(taken)] for key, taken in pieces.items()}, beside


def _is_head(key: str, rules: Sequence[Rule | Dropped]) -> bool:
    return bool(HEADS.match(key)) and all(rule.match_key(key) is None for rule in rules)


def joined(pieces: Mapping[str, Sequence[np.ndarray]], size: int) -> dict[str, np.ndarray]:
    """One array of the pieces of each; size: bytes of the file, which no copy may exceed.

    Raises InputError where pieces do not fit each other, or are expanded.
    """
    parts = [array for arrays in pieces.values() if len(arrays) > 1 for array in arrays]
    if sum(array.nbytes for array in parts) > size + LARGEST_EXPANDED:
        raise InputError("has tensors that are expanded; save tensor.contiguous()")
    found = {}
    for key, arrays in pieces.items():
        try:
            found[key] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        except (TypeError, ValueError):
            shapes = ", ".join(str(array.shape) for array in arrays[:4])
            raise InputError(f"{printable(key)}: is in pieces of shapes {shapes}") from None
    return found


def respelt_values(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """DINOv2 as timm has it with the tensors of the published file; all else as it is.

    timm adds the class token's position to the token and leaves it out of `pos_embed`, and calls
    the layers of SwiGLU fc1 and fc2.
    """
    state = dict(state)
    positions, token = state.get("pos_embed"), state.get("cls_token")
    if _are_patches(positions) and token is not None and token.shape == (1, 1, positions.shape[2]):
        none = np.zeros_like(positions[:, :1])
        state["pos_embed"] = np.concatenate([none, positions], axis=1)
    narrow, wide = (state.get(f"blocks.0.mlp.{name}.weight") for name in ("fc2", "fc1"))
    if _is_gated(wide, narrow):
        names = {"fc1": "w12", "fc2": "w3"}
        template = "{before:blocks[.][0-9]+[.]mlp[.]}{layer:fc[12]}{after:.+}"
        for key in list(state):
            if fields := fields_of_name(template, key):
                fields["layer"] = names[fields["layer"]]
                state[filled_template(template, fields)] = state.pop(key)
    return state


def _are_patches(positions: np.ndarray | None) -> bool:
    """Whether these are the positions of a square of patches alone; expanded ones are not."""
    if positions is None or positions.ndim != 3 or len(positions) != 1 or 0 in positions.strides:
        return False
    return positions.shape[1] > 1 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]


def _is_gated(wide: np.ndarray | None, narrow: np.ndarray | None) -> bool:
    if wide is None or narrow is None or wide.ndim != 2 or narrow.ndim != 2:
        return False
    return wide.shape[0] == 2 * narrow.shape[1]

"""A method with the seeded parameters of the published one, and how far it is from its values.

tests/golden/fill.py makes parameters and inputs; the `.npz` beside it hold what they give.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.weights.conversion import to_variables
from dinogrl_jax.weights.rules import Dropped, Rule, filled_template

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
import fill  # noqa: E402


class Place(NamedTuple):
    """A published tensor, named `file:key`, and where it is here."""

    rule: Rule
    collection: str
    path: tuple[str, ...]

    def of(self, tree: dict) -> np.ndarray:
        """The tensor in PyTorch's layout; tree: the collection."""
        for name in self.path:
            tree = tree[name]
        return self.rule.layout.to_torch(np.asarray(tree))


def places(method: ModuleType, config: ConfigDict) -> Callable[[str], Place | None]:
    """`file:key` → its place; None for what is dropped."""
    rules = {file.name: file.rules for file in method.released_files(config).values()}

    def place(name: str) -> Place | None:
        file, key = name.split(":")
        for rule in rules[file]:
            if (fields := rule.match_key(key)) is not None:
                if isinstance(rule, Dropped):
                    return None
                collection, *path = filled_template(rule.paths[0], fields).split("/")
                return Place(rule, collection, tuple(path))
        raise KeyError(name)

    return place


def seeded_variables(
    method: ModuleType, manifest: str, model: nn.Module, config: ConfigDict, seed: int, dtype: type
) -> dict:
    """The golden parameters, through the rules that convert the published files."""
    shapes = variable_shapes(model, config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
    entries = json.loads((GOLDEN / manifest).read_text())
    variables = {collection: {} for collection in shapes}
    for file in method.released_files(config).values():
        part = {
            collection: {name: tree[name] for name in file.modules if name in tree}
            for collection, tree in shapes.items()
        }
        state = dict(seeded_state(file.name, entries[file.name], file.rules, seed))
        converted, _ = to_variables(state, file.rules, part, source_name=file.name)
        for collection in variables:
            variables[collection] |= jax.tree.map(jnp.asarray, converted[collection])
    return variables


def seeded_state(
    file: str, entries: Sequence, rules: Sequence[Rule | Dropped], seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that are used; of the others the shapes alone."""
    dropped = [rule for rule in rules if isinstance(rule, Dropped)]
    for key, shape in entries:
        if any(rule.match_key(key) is not None for rule in dropped):
            yield key, np.broadcast_to(np.float32(0), shape)
        else:
            yield key, fill.parameter(f"{file}:{key}", tuple(shape), seed)


def sampled(array, count: int) -> np.ndarray:
    """The entries that the golden files hold of an array, as float64."""
    flat = np.asarray(array, np.float64).reshape(-1)
    if flat.size < count:
        return np.resize(flat, count)
    return flat[np.linspace(0, flat.size - 1, count).astype(np.int64)]


def off(array, golden: np.ndarray) -> float:
    """The largest difference from the golden samples, in their deviations."""
    golden = golden.astype(np.float64)
    return float(np.abs(sampled(array, golden.size) - golden.reshape(-1)).max() / golden.std())


def relative(value, golden) -> float:
    return abs(float(value) / float(golden) - 1)

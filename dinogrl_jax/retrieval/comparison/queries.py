"""queries.json: what each query reached, so that runs can be compared without their models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.interface.settings import leaves
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.metrics import Result, result_of_queries
from dinogrl_jax.retrieval.tables import DIRECTIONS

FILE = "queries.json"
MOST = 10**9  # tracklets of a gallery
DIRECTION = {"gallery": int, "query": [str], "first": [int], "AP": [float], "INP": [float]}
SHAPE = {
    "source": {"features?": str, "checkpoint?": str, "step?": int},
    "options": {"protocol": str, "camera_filter": bool, "distance": str, "rerank": str},
    "settings": {...: (bool, int, float, str, list, type(None))},
    "directions": {...: DIRECTION},
}


class Ranked(NamedTuple):
    """The queries of one direction by name, and what each of them reached."""

    names: list[str]  # a path, or the number of the tracklet; in the order of the result
    result: Result


class Scored(NamedTuple):
    """What was scored, how, and what the queries reached."""

    source: Mapping[str, Any]  # "features", or "checkpoint" and "step"
    options: Mapping[str, Any]  # as `scoring.options_used` has them
    settings: Mapping[str, Any]  # of the configuration by names with dots; {} without one
    directions: Mapping[str, Ranked]


def scored(
    evaluation: scoring.Evaluation,
    paths: Sequence[str],
    source: Mapping[str, Any],
    config: ConfigDict | None = None,
) -> Scored:
    """What is kept of an evaluation; paths: of all rows of the descriptors, "" where unknown."""
    directions = {}
    for name, result in evaluation.results.items():
        rows = evaluation.directions[name].query.rows.tolist()
        directions[name] = Ranked([paths[row] or f"tracklet {row}" for row in rows], result)
    settings = {} if config is None else dict(leaves(config))
    return Scored(source, scoring.options_used(evaluation), settings, directions)


def write_queries(folder: Path, found: Scored) -> None:
    """Write queries.json into a folder, completely or not at all; InputError if it cannot be."""
    directions = {
        name: {
            "gallery": result.gallery,
            "query": names,
            "first": result.first.tolist(),
            "AP": result.ap.tolist(),
            "INP": result.inp.tolist(),
        }
        for name, (names, result) in found.directions.items()
    }
    write_json(folder / FILE, {**found._asdict(), "directions": directions})


def read_queries(path: Path) -> Scored:
    """The content of queries.json; InputError, which names the file, for one that holds none."""
    content = read_json(path, SHAPE)
    with errors_naming(path):
        directions = {name: _ranked(name, x) for name, x in content["directions"].items()}
        if not directions:
            raise InputError("holds no queries: evaluate again")
    return Scored(content["source"], content["options"], content["settings"], directions)


def _ranked(name: str, content: Mapping[str, Any]) -> Ranked:
    names, gallery = content["query"], content["gallery"]
    columns = [content[key] for key in ("AP", "INP", "first")]
    highest = (1, 1, gallery)
    if name not in DIRECTIONS or not 0 < gallery <= MOST:
        raise InputError(f"{name[:40]!r} is no direction with a gallery: evaluate again")
    for column, most in zip(columns, highest, strict=True):
        if len(column) != len(names) or not all(0 <= x <= most for x in column):
            raise InputError(f"{name} holds no ranks and precisions of its queries: evaluate again")
    if not any(content["first"]):
        raise InputError(f"{name} has no query with a match: evaluate again")
    ap, inp, first = map(np.array, columns)
    return Ranked(names, result_of_queries(ap.astype(float), inp.astype(float), first, gallery))

"""queries.json: what each query reached, so that runs can be compared without their models."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.data.readers.spelling import UNKNOWN_WORDS, spelling_key
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.interface.settings import leaves
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.metrics import Result, result_of_queries
from dinogrl_jax.retrieval.report.subjects import Subject
from dinogrl_jax.retrieval.tables import DIRECTIONS

FILE = "queries.json"
MOST_GALLERY = 10**9  # tracklets
LONGEST = 4096  # letters of a name, an identity or a camera, as of a path in a features file
WHO = ("query", "identity", "camera")  # what tells queries from each other
DIRECTION = {
    "query": [str],
    "identity": [str],
    "camera": [str],
    "first": [int],
    "AP": [float],
    "INP": [float],
    "gallery": int,
    "gallery_sha256": str,
}
SHAPE = {
    "source": {"features?": str, "checkpoint?": str, "step?": int},
    "options": {"protocol": str, "camera_filter": bool, "distance": str, "rerank": str},
    "settings": {...: (bool, int, float, str, list, type(None))},
    "directions": {...: DIRECTION},
}


class Row(NamedTuple):
    """What a tracklet is known by, in every file that has it."""

    name: str  # its path, or its number where there is none
    identity: str  # "" unknown
    camera: str

    def __str__(self) -> str:
        who = f"identity {self.identity[:40] or 'unknown'}, camera {self.camera[:40] or 'unknown'}"
        return f"{self.name[:80]!r} ({who})"


class Ranked(NamedTuple):
    """The queries of one direction, what each of them reached, and what they searched."""

    rows: list[Row]  # in the order of the result
    result: Result
    gallery_digest: str  # SHA-256 of the rows of the gallery


class Scored(NamedTuple):
    """What was scored, how, and what the queries reached."""

    source: Mapping[str, Any]  # "features", or "checkpoint" and "step"
    options: Mapping[str, Any]  # as `scoring.options_used` has them
    settings: Mapping[str, Any]  # of the configuration by names with dots; {} without one
    directions: Mapping[str, Ranked]


def scored_queries(
    evaluation: scoring.Evaluation,
    subject: Subject,
    source: Mapping[str, Any],
    config: ConfigDict | None = None,
) -> Scored:
    """What is kept of an evaluation; subject: the words for all rows of the descriptors."""
    everyone, directions = rows_of(subject), {}
    for name, result in evaluation.results.items():
        query, gallery = (
            [everyone[row] for row in x.rows.tolist()] for x in evaluation.directions[name][:2]
        )
        directions[name] = Ranked(query, result, digest_of(gallery))
    settings = {} if config is None else dict(leaves(config))
    return Scored(source, scoring.options_used(evaluation), settings, directions)


def rows_of(subject: Subject) -> list[Row]:
    """What each tracklet is known by; one without a path has the number of its row."""
    names = [path or f"tracklet {row}" for row, path in enumerate(subject.path)]
    columns = names, known_words(subject.identity), known_words(subject.camera)
    return [Row(*row) for row in zip(*columns, strict=True)]


def known_words(words: Sequence[str]) -> list[str]:
    """Identities or cameras in the spelling that all files share; "" for unknown ones."""
    keys = {word: spelling_key(word) for word in set(words)}
    return ["" if keys[word] in UNKNOWN_WORDS else keys[word] for word in words]


def digest_of(gallery: Sequence[Row]) -> str:
    """SHA-256 of the rows of a gallery, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(gallery)).encode()).hexdigest()


def write_queries(folder: Path, found: Scored) -> None:
    """Write queries.json into a folder, completely or not at all; InputError if it cannot be."""
    directions = {
        name: {
            **dict(zip(WHO, map(list, zip(*rows, strict=True)), strict=True)),
            "first": result.first.tolist(),
            "AP": result.ap.tolist(),
            "INP": result.inp.tolist(),
            "gallery": result.gallery,
            "gallery_sha256": digest,
        }
        for name, (rows, result, digest) in found.directions.items()
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
    gallery, columns = content["gallery"], [content[key] for key in ("AP", "INP", "first")]
    highest = (1, 1, gallery)
    if name not in DIRECTIONS or not 0 < gallery <= MOST_GALLERY:
        raise InputError(f"{name[:40]!r} is no direction with a gallery: evaluate again")
    rows = _rows(name, content)
    for column, most in zip(columns, highest, strict=True):
        if len(column) != len(rows) or not all(0 <= x <= most for x in column):
            raise InputError(f"{name} holds no ranks and precisions of its queries: evaluate again")
    if not any(content["first"]):
        raise InputError(f"{name} has no query with a match: evaluate again")
    ap, inp, first = map(np.array, columns)
    result = result_of_queries(ap.astype(float), inp.astype(float), first, gallery)
    return Ranked(rows, result, content["gallery_sha256"])


def _rows(name: str, content: Mapping[str, Any]) -> list[Row]:
    columns = [content[key] for key in WHO]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{name} has not an identity and a camera of each query: evaluate again")
    if any(len(word) > LONGEST for column in columns for word in column):
        raise InputError(f"{name} has a name of more than {LONGEST} letters: evaluate again")
    return [Row(*row) for row in zip(*columns, strict=True)]

"""Files of descriptors: an .npz, which scripts/extract.py or anyone else wrote."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.data.readers.spelling import (
    LONGEST,
    UNKNOWN,
    UNKNOWN_WORDS,
    NamedCamera,
    Spellings,
)
from dinogrl_jax.interface.arrays import NUMBERS, TEXT, Wanted, read_arrays
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.distances import distance_formula
from dinogrl_jax.retrieval.gallery import check_columns

COLUMNS = ("identity", "camera", "modality", "role", "path")
HALVES = ("embedding_first", "embedding_second")
WANTED = {
    "embedding": Wanted(NUMBERS, needed=True),
    "identity": Wanted(NUMBERS + TEXT, needed=True, longest=LONGEST),
    "camera": Wanted(NUMBERS + TEXT, longest=LONGEST),
    "modality": Wanted(TEXT, needed=True, longest=LONGEST),
    "role": Wanted(TEXT, longest=LONGEST),
    "path": Wanted(TEXT, longest=4096),
    "distance": Wanted(TEXT, longest=40),
    "model": Wanted(TEXT, longest=100),
    "title": Wanted(TEXT, longest=100),
    **dict.fromkeys(HALVES, Wanted(NUMBERS)),
}


class Features(NamedTuple):
    """The arrays of a features file: n tracklets in the order of the file."""

    embedding: Float[np.ndarray, "n ..."]
    identity: Int[np.ndarray, " n"]  # as numbers; a tracklet of unknown identity matches none
    names: Shaped[np.ndarray, " n"]  # identities as in the file; "" is unknown
    camera: Shaped[np.ndarray, " n"] | None
    modality: Shaped[np.ndarray, " n"]
    role: Shaped[np.ndarray, " n"]
    path: Shaped[np.ndarray, " n"]  # "" unknown
    halves: tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, "n ..."]] | None
    distance: str = "part_euclidean"  # an entry of distances.FORMULAS
    model: str = ""  # the fingerprint of what made them, as a gallery keeps it; "" unknown
    title: str = ""  # its name for people

    @property
    def label_columns(self) -> dict[str, Shaped[np.ndarray, " n"] | None]:
        """What `scoring.evaluation_of` takes beside the embedding."""
        return {name: getattr(self, name) for name in COLUMNS[:4]}


def read_features(path: str) -> Features:
    """The features of an .npz: `embedding` [n, p, d] or [n, d], `identity`, `modality`.

    `camera`, `role` (default "both"), `path`, `distance` (default "part_euclidean"), `model` and
    `title`, and `embedding_first` and `embedding_second` of the halves of tracklets are optional.
    The identities −1 and "" are unknown.

    Raises InputError for a file that is no .npz, arrays that are missing, disagree or hold objects,
    descriptors that are not finite numbers, and tracklets that are there twice.
    """
    with errors_naming(path):
        return features_of(read_arrays(path, WANTED))


def features_of(arrays: Mapping[str, np.ndarray]) -> Features:
    """The features of arrays by the names in a file; InputError as `read_features`."""
    features = _features_of(dict(arrays))
    _check_finite(features)
    _check_duplicates(features)
    return features


def check_writable(path: str) -> None:
    """Raise InputError if a file cannot be written: better before hours of work than after them."""
    file = Path(path)
    if file.is_dir() or not os.access(file.absolute().parent, os.W_OK):
        raise InputError(f"{path}: cannot be written; its folder has to exist, and it is a file")


def write_features(path: str, /, **arrays: np.ndarray) -> None:
    """Write an .npz, which appears when it is complete and replaces an older one.

    Raises InputError if it cannot be written.
    """
    with atomic_write(Path(path)) as file:
        np.savez(file, **arrays)


def _features_of(arrays: dict[str, np.ndarray]) -> Features:
    for name in ("embedding", *HALVES):
        if name in arrays and arrays[name].dtype == np.float16:  # as extraction may store it
            arrays[name] = arrays[name].astype(np.float32)
    embedding = arrays["embedding"]
    if embedding.ndim not in (2, 3) or embedding.dtype.kind != "f" or not embedding.size:
        raise InputError(
            f"embedding is {embedding.dtype} of shape {embedding.shape}; it has to be "
            "floating-point, [tracklets, channels] or [tracklets, parts, channels], and not empty"
        )
    count = len(embedding)
    known = {"role": np.full(count, "both"), "path": np.full(count, "")} | arrays
    columns = {name: known[name] for name in COLUMNS if name in known}
    check_columns(count, **columns)
    columns = {name: _as_text(column, name != "camera") for name, column in columns.items()}
    names = _identity_names(columns.pop("identity"), columns["path"])
    if columns.get("camera", names).dtype.kind == "U":
        _check_spellings("camera", columns.get("camera", names), columns["path"])
    numbers = np.unique(names, return_inverse=True)[1]
    numbers = np.where(names == "", count + np.arange(count), numbers)  # unknown: one each
    halves = _checked_halves(arrays, embedding.shape)
    columns = {"camera": None, **columns}
    distance = _one_text(arrays, "distance", "part_euclidean")
    distance_formula(distance)
    model = {name: _one_text(arrays, name) for name in ("model", "title")}
    return Features(embedding, numbers, names, **columns, halves=halves, distance=distance, **model)


def _one_text(arrays: dict[str, np.ndarray], name: str, default: str = "") -> str:
    text = arrays.get(name, np.array(default))
    if text.shape:
        raise InputError(f"{name} has shape {text.shape}; it has to be one text")
    return str(text.astype(str))


def _as_text(column: np.ndarray, numbers: bool) -> np.ndarray:
    """Bytes as text, and `numbers` too; whole ones of floating point are written as such."""
    if column.dtype.kind == "S":
        return np.char.decode(column, "utf-8", "replace")
    if numbers and column.dtype.kind == "f":
        whole = (f"{x + 0.0:.0f}" if x == np.round(x) else str(x) for x in column.tolist())
        return np.array([*whole], "U")
    return column.astype(str) if numbers and column.dtype.kind in "iub" else column


def _identity_names(identity: np.ndarray, path: np.ndarray) -> Shaped[np.ndarray, " n"]:
    """Identities as text; "" for those that are unknown: −1, empty text and NaN.

    Raises InputError for one name in two spellings, as in a manifest.
    """
    names = np.where(np.isin(np.char.lower(np.char.strip(identity)), UNKNOWN_WORDS), "", identity)
    _check_spellings("identity", names, path)
    return names


def _check_spellings(what: str, column: np.ndarray, path: np.ndarray) -> None:
    spellings = Spellings(what)
    names, first = np.unique(column, return_index=True)
    for name, row in zip(names.tolist(), first.tolist(), strict=True):
        place = f"tracklet {row}{_path_suffix(path[row])}"
        if name != "" and (text := spellings.problem(name, place)):
            raise InputError(f"{place}: {text}")


def _checked_halves(arrays: dict, shape: tuple[int, ...]) -> tuple | None:
    found = tuple(arrays[name] for name in HALVES if name in arrays)
    if found and (len(found) < 2 or any(x.shape != shape or x.dtype.kind != "f" for x in found)):
        raise InputError(f"{' and '.join(HALVES)} have to be there both, shaped {shape}")
    return found or None


def _check_finite(features: Features) -> None:
    arrays = features.embedding, *(features.halves or ())
    for name, array in zip(("embedding", *HALVES), arrays, strict=False):
        bad = np.flatnonzero([not np.isfinite(descriptor).all() for descriptor in array])
        if len(bad):
            first = f"tracklet {bad[0]}{_path_suffix(features.path[bad[0]])}"
            more = f", and {len(bad) - 1} more tracklets" if len(bad) > 1 else ""
            raise InputError(f"{name} of {first}{more} has NaN or infinite values")


def _check_duplicates(features: Features) -> None:
    """Raise InputError for a tracklet that is in the same set twice.

    Tracklets are the same if identity, camera, modality, path and descriptor are equal. One may
    occur as a query and again as a gallery entry.
    """
    embedding = features.embedding.reshape(len(features.embedding), -1)
    camera = features.camera if features.camera is not None else np.zeros(len(embedding), int)
    keys = features.names, camera.astype(str), features.modality, features.path
    seen: dict[tuple, dict[str, int]] = {}  # by what makes them the same: roles, and their rows
    for row, key in enumerate(zip(*(x.tolist() for x in keys), strict=True)):
        # + 0 makes 0 of −0, which equals it
        content = hashlib.blake2b(np.ascontiguousarray(embedding[row] + 0), digest_size=16)
        roles = seen.setdefault((*key, content.digest()), {})
        role = str(features.role[row])
        for other in roles:
            if {role, other} != {"query", "gallery"}:
                raise InputError(
                    f"tracklets {roles[other]} and {row}{_path_suffix(key[3])} are the same; "
                    "remove one, or its rank counts twice"
                )
        roles[role] = row


def _path_suffix(path: str) -> str:
    return f" ({printable(repr(str(path)[:200]))})" if path else ""


def tracklet_columns(listed: Sequence[ListedTracklet]) -> dict[str, Shaped[np.ndarray, " n"]]:
    """identity, camera, modality, role and path of each tracklet.

    Identities and cameras are int64; if any has a name, all are text, and "" is unknown.
    """
    tracklets = [tracklet for tracklet, _ in listed]
    columns = {
        "identity": _numbers_or_text([one.identity for one in tracklets], str),
        "camera": _numbers_or_text([one.camera for one in tracklets], NamedCamera),
    }
    for name in ("modality", "role"):
        columns[name] = np.array([getattr(tracklet, name) for tracklet in tracklets])
    return {**columns, "path": np.array([p for _, p in listed])}


def _numbers_or_text(values: Sequence[int | str], text: type) -> Shaped[np.ndarray, " n"]:
    if any(isinstance(value, text) for value in values):
        return np.array(["" if value == UNKNOWN else str(value) for value in values])
    return np.array(values)

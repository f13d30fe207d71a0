"""Files of descriptors: an .npz, which scripts/extract.py or anyone else wrote."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval.gallery import check_columns

COLUMNS = ("identity", "camera", "modality", "role", "path")
HALVES = ("embedding_first", "embedding_second")


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

    @property
    def label_columns(self) -> dict[str, Shaped[np.ndarray, " n"] | None]:
        """What `scoring.evaluation_of` takes beside the embedding."""
        return {name: getattr(self, name) for name in COLUMNS[:4]}


def read_features(path: str) -> Features:
    """The features of an .npz: `embedding` [n, p, d] or [n, d], `identity`, `modality`.

    `camera`, `role` (default "both"), `path`, and `embedding_first` and `embedding_second` of the
    halves of tracklets are optional. The identities −1 and "" are unknown.

    Raises InputError for a file that is no .npz, arrays that are missing, disagree or hold objects,
    descriptors that are not finite numbers, and tracklets that are there twice.
    """
    with errors_naming(path):
        features = _features_of(_load_arrays(path))
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
    for name in ("embedding", "identity", "modality"):
        if name not in arrays:
            raise InputError(f"has no array {name!r}; there is {', '.join(arrays)}")
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
    names = _identity_names(columns.pop("identity"))
    numbers = np.unique(names, return_inverse=True)[1]
    numbers = np.where(names == "", count + np.arange(count), numbers)  # unknown: one each
    halves = _checked_halves(arrays, embedding.shape)
    return Features(embedding, numbers, names, **{"camera": None, **columns}, halves=halves)


def _load_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of the file; nothing in it is unpickled."""
    if os.path.isdir(path):
        raise InputError("is a folder, not an .npz of features")
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz"
        raise InputError(f"cannot be read ({reason})") from error
    if isinstance(file, np.ndarray):
        raise InputError("holds one array without a name: save it with np.savez")
    with file:
        return {name: _load_array(file, name) for name in file.files}


def _load_array(file, name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        raise InputError(
            f"{name} holds Python objects, as rows of different widths or mixed types make them; "
            "save numbers or text of one shape"
        ) from error
    except (zipfile.BadZipFile, EOFError, OSError, MemoryError) as error:
        raise InputError(f"{name} is damaged ({error})") from error


def _as_text(column: np.ndarray, numbers: bool) -> np.ndarray:
    """Bytes as text, and `numbers` too."""
    if column.dtype.kind == "S":
        return np.char.decode(column, "utf-8", "replace")
    return column.astype(str) if numbers and column.dtype.kind in "iub" else column


def _identity_names(identity: np.ndarray) -> Shaped[np.ndarray, " n"]:
    """Identities as text; "" for −1, empty text and NaN."""
    if identity.dtype.kind == "f":
        identity = np.array([f"{x:.0f}" if x == x and x == round(x) else str(x) for x in identity])
    return np.where(np.isin(identity, ("-1", "nan")), "", identity)


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
    keys = features.names, camera.astype(str), features.modality, features.path, embedding[:, 0]
    seen: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(*(x.tolist() for x in keys), strict=True)):
        for other in seen.setdefault(key, []):
            roles = {str(features.role[row]), str(features.role[other])}
            if roles != {"query", "gallery"} and np.array_equal(embedding[row], embedding[other]):
                raise InputError(
                    f"tracklets {other} and {row}{_path_suffix(key[3])} are the same; remove one, "
                    "or its rank counts twice"
                )
        seen[key].append(row)


def _path_suffix(path: str) -> str:
    return f" ({str(path)!r})" if path else ""


def tracklet_columns(listed: Sequence[ListedTracklet]) -> dict[str, Shaped[np.ndarray, " n"]]:
    """identity, camera, modality, role and path of each tracklet.

    Identities are int64; if any has a name, all are text, and "" is unknown.
    """
    identities = [tracklet.identity for tracklet, _ in listed]
    if any(isinstance(identity, str) for identity in identities):
        identities = ["" if identity == -1 else str(identity) for identity in identities]
    columns = {
        name: np.array([getattr(tracklet, name) for tracklet, _ in listed])
        for name in ("camera", "modality", "role")
    }
    return {"identity": np.array(identities), **columns, "path": np.array([p for _, p in listed])}

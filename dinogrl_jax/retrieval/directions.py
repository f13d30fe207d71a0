"""Who queries whom: the two directions of a test set, and their results."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Int, Shaped

from dinogrl_jax.data.tracklets import MODALITIES, ROLES, direction_roles
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.gallery import (
    DescriptorSet,
    JunkRule,
    check_columns,
    no_junk,
    same_camera,
)
from dinogrl_jax.retrieval.metrics import Result, both_directions, one_direction
from dinogrl_jax.retrieval.protocols import protocol_rule

NO_FILTER = "give them, or score without it (--camera_filter off)"


class Direction(NamedTuple):
    """The queries and the gallery of one direction, and which entries a query ignores."""

    query: DescriptorSet
    gallery: DescriptorSet
    junk: JunkRule


def directions(
    embedding: Shaped[ArrayLike, "n ..."],
    identity: Shaped[np.ndarray, " _"],
    camera: Shaped[np.ndarray, " _"] | None,
    modality: Shaped[np.ndarray, " _"],
    role: Shaped[np.ndarray, " _"],
    protocol: str = "vcm",
    camera_filter: bool | None = None,
) -> dict[str, Direction]:
    """The directions "visible_to_infrared" and "infrared_to_visible", if they have queries.

    `modality` is "visible" or "infrared"; `role` is "query", "gallery", "both", or "train" for
    tracklets that take no part. `protocol` names an entry of PROTOCOLS, whose camera filter
    `camera_filter` overrides.

    Raises InputError for columns of other lengths, unknown words, cameras that the filter needs
    but that are missing or mix numbers and names, no query at all, or queries without a gallery.
    """
    rule, count = protocol_rule(protocol), embedding.shape[0]
    filtered = rule.camera_filter if camera_filter is None else camera_filter
    check_columns(count, identity=identity, modality=modality, role=role)
    _check_words("modality", modality, MODALITIES)
    _check_words("role", role, (*ROLES, "train"))
    camera = _camera_numbers(camera, count) if filtered else np.zeros(count, int)

    def subset(m: str, r: str) -> DescriptorSet:
        rows = np.flatnonzero((modality == m) & np.isin(role, (r, "both")))
        if m == "visible":
            rows = rows[: len(rows) - len(rows) % rule.visible_multiple]
        return DescriptorSet(embedding, rows, identity[rows], camera[rows])

    found = {}
    for own, other in (MODALITIES, MODALITIES[::-1]):
        asking, searched = direction_roles(own, rule.exchanged)
        query, gallery = subset(own, asking), subset(other, searched)
        if len(query.rows) and not len(gallery.rows):
            raise InputError(
                f'the gallery set is empty: no {other} tracklet has the role "{searched}" or "both"'
            )
        if len(query.rows):
            junk = same_camera if filtered else no_junk
            found[f"{own}_to_{other}"] = Direction(query, gallery, junk)
    if not found:
        raise InputError('no tracklet has the role "query" or "both"')
    return found


def direction_results(found: dict[str, Direction], **options) -> dict[str, Result]:
    """The result of each direction; two that exchange the same sets share one pass.

    `options` and errors are those of `metrics.one_direction`.
    """
    if are_exchanged(found):
        pair = both_directions(*next(iter(found.values())), **options)
        return dict(zip(found, pair, strict=True))
    return {name: one_direction(*d, **options) for name, d in found.items()}


def are_exchanged(found: dict[str, Direction]) -> bool:
    """Whether there are two directions and each searches the queries of the other."""
    if len(found) < 2:
        return False
    a, b = found.values()
    pairs = (a.query, b.gallery), (a.gallery, b.query)
    return all(np.array_equal(x.rows, y.rows) for x, y in pairs)


def _check_words(name: str, column: np.ndarray, words: tuple[str, ...]) -> None:
    unknown = ~np.isin(column, words)
    if unknown.any():
        at = int(np.argmax(unknown))
        raise InputError(f"{name} of tracklet {at} is {str(column[at])!r}: use {', '.join(words)}")


def _camera_numbers(camera: np.ndarray | None, count: int) -> Int[np.ndarray, " n"]:
    """Cameras as numbers."""
    if camera is None:
        raise InputError(f"the camera filter needs a camera for each tracklet: {NO_FILTER}")
    check_columns(count, camera=camera)
    missing = np.array([c is None or c == "" or c != c for c in camera.tolist()], bool)
    if camera.dtype.kind in "if":
        missing |= camera < 0
    if missing.any():
        at = np.argmax(missing)
        raise InputError(f"tracklet {at} has no camera, which the filter needs: {NO_FILTER}")
    words = camera.astype(str)
    numeric = np.char.isdigit(words)
    if numeric.any() and not numeric.all() and camera.dtype.kind != "f":
        number, name = np.argmax(numeric), np.argmin(numeric)
        raise InputError(
            f"cameras mix numbers and names: tracklet {number} has {str(words[number])!r}, "
            f"tracklet {name} has {str(words[name])!r}; the filter compares them as written"
        )
    return np.unique(words, return_inverse=True)[1]

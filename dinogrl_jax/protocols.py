"""How the data sets are scored: who queries whom, and what a query ignores."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Int, Shaped

from dinogrl_jax.errors import InputError
from dinogrl_jax.gallery import Tracklets, no_junk, same_camera
from dinogrl_jax.metrics import Result, both_ways, one_way


class Protocol(NamedTuple):
    """The settings in which the published protocols differ."""

    camera_filter: bool  # ignore gallery tracklets of the query's identity and camera
    visible_multiple: int = 1  # visible queries and gallery are cut to a multiple of this


PROTOCOLS = {
    "vcm": Protocol(camera_filter=True),
    "bupt-full": Protocol(camera_filter=False),
    # the published sampler drops what the visible tracklets leave of their last batch of 64
    "bupt-official-drop64": Protocol(camera_filter=False, visible_multiple=64),
}
FILTERS = {"protocol": None, "on": True, "off": False}  # evaluation.camera_filter
MODALITIES = ("visible", "infrared")
ROLES = ("query", "gallery", "both")


def score(
    embedding: Shaped[ArrayLike, "n ..."],
    identity: Shaped[np.ndarray, " _"],
    camera: Shaped[np.ndarray, " _"] | None,
    modality: Shaped[np.ndarray, " _"],
    role: Shaped[np.ndarray, " _"],
    protocol: str = "vcm",
    camera_filter: bool | None = None,
    **options,
) -> dict[str, Result]:
    """The results "visible_to_infrared" and "infrared_to_visible", as far as there are queries.

    `modality` is "visible" or "infrared", `role` "query", "gallery" or "both". `protocol` names an
    entry of PROTOCOLS, `camera_filter` overrides its own. Directions that exchange the same two
    sets share one pass over the distances. `options` are those of `metrics.one_way`.

    Errors: InputError as `metrics.one_way`; for columns of other lengths, unknown words, cameras
    that the filter needs and misses, no query at all.
    """
    rule = _protocol(protocol)
    filtered = rule.camera_filter if camera_filter is None else camera_filter
    _check_columns(embedding.shape[0], identity=identity, modality=modality, role=role)
    _check_words(modality=(modality, MODALITIES), role=(role, ROLES))
    camera = _cameras(camera, embedding.shape[0], filtered)

    def subset(m: str, r: str) -> Tracklets:
        rows = np.flatnonzero((modality == m) & np.isin(role, (r, "both")))
        if m == "visible":
            rows = rows[: len(rows) - len(rows) % rule.visible_multiple]
        return Tracklets(embedding, rows, identity[rows], camera[rows])

    queries, galleries = ({m: subset(m, r) for m in MODALITIES} for r in ROLES[:2])
    return _directions(queries, galleries, junk=same_camera if filtered else no_junk, **options)


def filters_cameras(protocol: str, camera_filter: str = "protocol") -> bool:
    """Whether a query ignores gallery tracklets of its own identity and camera.

    `camera_filter` is the setting of that name: "protocol", "on" or "off".

    Raises InputError for an unknown name.
    """
    if camera_filter not in FILTERS:
        raise InputError(f"evaluation.camera_filter = {camera_filter!r}: {', '.join(FILTERS)}")
    own, chosen = _protocol(protocol).camera_filter, FILTERS[camera_filter]
    return own if chosen is None else chosen


def described(protocol: str, camera_filter: str, figures: dict[str, dict]) -> list[str]:
    """Lines that say what was scored: the junk rule, and of each direction queries and gallery.

    `figures` are those of `evaluate.figures`, by the direction's name.
    """
    junk = "of its own identity and camera" if filters_cameras(protocol, camera_filter) else "none"
    multiple = _protocol(protocol).visible_multiple
    cut = f"; visible sets are cut to a multiple of {multiple}" if multiple > 1 else ""
    return [
        f"protocol {protocol}: gallery tracklets that a query ignores: {junk}{cut}",
        *(
            f"  {name.replace('_', ' ')}: {row['queries']} queries, {row['gallery']} in the gallery"
            for name, row in figures.items()
        ),
    ]


def _directions(queries: dict, galleries: dict, **options) -> dict[str, Result]:
    visible, infrared = MODALITIES
    names = f"{visible}_to_{infrared}", f"{infrared}_to_{visible}"
    if all(np.array_equal(queries[m].rows, galleries[m].rows) for m in MODALITIES):
        both = both_ways(queries[visible], galleries[infrared], **options)
        return dict(zip(names, both, strict=True))
    pairs = (queries[visible], galleries[infrared]), (queries[infrared], galleries[visible])
    results = {
        name: one_way(*pair, **options)
        for name, pair in zip(names, pairs, strict=True)
        if len(pair[0].rows)
    }
    if not results:
        raise InputError('no tracklet has the role "query" or "both"')
    return results


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _check_columns(count: int, **columns: np.ndarray) -> None:
    for name, column in columns.items():
        if column.shape != (count,):
            raise InputError(f"{name} has shape {column.shape}, the embedding {count} rows")


def _check_words(**columns: tuple[np.ndarray, tuple[str, ...]]) -> None:
    for name, (column, words) in columns.items():
        unknown = ~np.isin(column, words)
        if unknown.any():
            at = int(np.argmax(unknown))
            raise InputError(
                f"{name} of tracklet {at} is {str(column[at])!r}: use {', '.join(words)}"
            )


def _cameras(camera: np.ndarray | None, count: int, needed: bool) -> Int[np.ndarray, " n"]:
    """Cameras as numbers; where no filter needs them, whatever they are."""
    if not needed:
        return np.zeros(count, int)
    if camera is None:
        raise InputError("the camera filter needs a camera for each tracklet: give them, or none")
    _check_columns(count, camera=camera)
    missing = np.array([c is None or c == "" or c != c for c in camera.tolist()], bool)
    if camera.dtype.kind in "if":
        missing |= camera < 0
    if missing.any():
        raise InputError(f"tracklet {np.argmax(missing)} has no camera, which the filter needs")
    return np.unique(camera.astype(str), return_inverse=True)[1]

"""t-SNE of the descriptors of a few identities, by scikit-learn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dinogrl_jax.retrieval import distances
from dinogrl_jax.retrieval.directions import Direction

IDENTITIES = 12  # as many as colours can tell apart
EACH = 40  # tracklets of an identity at most
PERPLEXITY = 20
LARGE = 1e6  # distances beyond are scaled, so that their squares are numbers


class Projection(NamedTuple):
    points: Float[np.ndarray, "n 2"]
    rows: Int[np.ndarray, " n"]  # of the descriptors
    identity: Int[np.ndarray, " n"]  # 0, 1, …


def tsne_projection(
    directions: Sequence[Direction], identity: Sequence[str], name: str
) -> Projection | None:
    """The points of evenly chosen identities, or None for fewer than 4 tracklets.

    It uses the named distance, or Euclidean distances if the named one may be negative.
    """
    from sklearn.manifold import TSNE  # imported here: it takes a second, and nothing else needs it

    rows = np.unique(np.concatenate([x.rows for d in directions for x in (d.query, d.gallery)]))
    names = np.array([identity[row] for row in rows])
    places = _shown_places(names)
    if len(places) < 4:
        return None
    embedding = directions[0].query._replace(rows=rows).take(places)
    name = "euclidean" if name == "dot" else name
    distance = np.array(distances.distance_matrix(name, embedding, embedding), np.float64).clip(0)
    np.fill_diagonal(distance, 0)
    largest = distance.max()
    if not 0 < largest < np.inf:  # all alike, or too far for float32: there is nothing to see
        return None
    if largest > LARGE:
        distance /= largest
    perplexity = min(PERPLEXITY, (len(places) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0)
    numbers = np.unique(names[places], return_inverse=True)[1]
    return Projection(tsne.fit_transform((distance + distance.T) / 2), rows[places], numbers)


def _shown_places(names: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """The places of evenly spaced identities with more than one tracklet."""
    known, count = np.unique(names[names != ""], return_counts=True)
    known = known[count > 1]
    picked = known[np.linspace(0, len(known) - 1, min(IDENTITIES, len(known))).astype(int)]
    places = [np.flatnonzero(names == name) for name in picked]
    each = [p[np.linspace(0, len(p) - 1, min(EACH, len(p))).astype(int)] for p in places]
    return np.concatenate(each) if each else np.zeros(0, int)

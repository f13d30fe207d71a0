"""Random queries and galleries of few identities."""

import numpy as np

from dinogrl_jax.retrieval.gallery import descriptor_set


def drawn(seed, query=13, gallery=37, integers=False):
    """Random sets of few identities; integers along a line give many exact ties."""
    rng = np.random.default_rng(seed)
    sides = []
    for n in (query, gallery):
        x = rng.standard_normal((n, 2, 8))
        if integers:
            x = rng.integers(0, 3, x.shape) * (np.arange(8) == 0)
        sides.append(
            descriptor_set(x.astype(np.float32), rng.integers(0, 6, n), rng.integers(0, 3, n))
        )
    return sides


def masks(query, gallery, junk):
    """Which gallery entries match and which are ignored, [q, g] each."""
    same = query.identity[:, None] == gallery.identity
    return same, np.broadcast_to(
        junk(query.identity[:, None], query.camera[:, None], gallery.identity, gallery.camera),
        same.shape,
    )

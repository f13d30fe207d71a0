"""Galleries in which few tracklets are many."""

import numpy as np
import pytest

from dinogrl_jax.retrieval.store import files, gallery, ranking
from dinogrl_jax.retrieval.store.source import Source, Threshold

PARTS, CHANNELS = 3, 32


@pytest.fixture
def few(monkeypatch):
    """Directions for more than 40 tracklets, in blocks of 1,024 bounds."""
    monkeypatch.setattr(gallery, "FEW", 40)
    monkeypatch.setattr(gallery, "AT_ONCE", 50)
    monkeypatch.setattr(ranking, "FEW", 40)
    monkeypatch.setattr(ranking, "AT_ONCE", 16)
    monkeypatch.setattr(ranking, "BLOCK", 32)
    monkeypatch.setattr(files, "COLUMNS", 1024)


class Model:
    """What a gallery has to know of a model."""

    def __init__(self, distance="part_euclidean", fingerprint="ours", thresholds=()):
        self.source = Source(fingerprint, f"{fingerprint}, step 7", distance, tuple(thresholds))


THRESHOLDS = (Threshold(0.1, 8.0), Threshold(0.01, 2.0))


def descriptors(count: int, seed: int = 0) -> np.ndarray:
    """Most of their variance is in a few directions; some are equal."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((5, PARTS * CHANNELS))
    x = rng.standard_normal((count, 5)) @ mix + 0.05 * rng.standard_normal((count, mix.shape[1]))
    x = (x + 3).astype(np.float32).reshape(count, PARTS, CHANNELS)
    x[count // 2 :: 7] = x[count // 3]
    return x

"""Batches of small data sets, made as a run makes them."""

import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax.data import pipeline, transforms
from dinogrl_jax.data.tracklets import labels

AUGMENT = {"pad": 2, "flip": 0.5, "erase": 0.5, "channels": True}


def training(train, config, **settings) -> list[pipeline.Batch]:
    settings = {"steps": 5} | settings
    with pipeline.training_batches(train, labels(train), config, **settings) as batches:
        return list(batches)


def assert_same(batches, others) -> None:
    for batch, other in zip(batches, others, strict=True):
        for value, other_value in zip(batch, other, strict=True):
            np.testing.assert_array_equal(value, other_value)


def plain_frame(path: str, config: ConfigDict) -> np.ndarray:
    out = np.empty((config.data.height, config.data.width, 3), np.float32)
    transforms.fill_frame(out, path)
    return out

"""Frames that JAX resizes, against Pillow's."""

import jax
import numpy as np
import pytest
from PIL import Image

from dinogrl_jax.data.transforms import OFFSET, SCALE
from dinogrl_jax.retrieval.export.preprocessing import normalised_frames

HEIGHT, WIDTH = 64, 32


@pytest.mark.parametrize(
    ("size", "share"),  # of values that may differ
    [
        *[((64, 32), 0), ((128, 64), 0), ((20, 90), 1e-2), ((1, 1), 0), ((63, 33), 1e-2)],
        *[((7, 400), 1e-2), ((288, 144), 1e-2), ((300, 200), 1e-2)],
        ((150, 47), 0.25),  # Pillow 13 takes rows first
    ],
)
def test_frames_are_resized_as_pillow_does(size, share):
    rng = np.random.default_rng(sum(size))
    pixels = rng.integers(0, 256, (3, *size, 3)).astype(np.uint8)
    made = jax.jit(normalised_frames, static_argnums=(1, 2))(pixels, HEIGHT, WIDTH)
    bilinear = Image.Resampling.BILINEAR
    for picture, found in zip(pixels, made, strict=True):
        wanted = np.asarray(Image.fromarray(picture).resize((WIDTH, HEIGHT), bilinear), float)
        errors = np.abs((np.asarray(found) - OFFSET) / SCALE - wanted)
        # A value between two of 8 bits is rounded up or down by an error of float32.
        assert errors.max() < 1.01 and (errors > 0.01).mean() <= share

"""Resizing against torch.nn.functional.interpolate."""

import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from dinogrl_jax.models.dinov2 import frames_resized, resampled_positions
from dinogrl_jax.ops.resize import bilinear_matrix

SIDE = 37
GRID = fill.parameter("best_shape.pth:dinov2.dinov2.pos_embed", (1, SIDE**2, 384), 130)[0]


def torch_resampled(**options):
    grid = torch.tensor(GRID.reshape(1, SIDE, SIDE, -1)).permute(0, 3, 1, 2)
    return interpolate(grid, mode="bicubic", **options)[0].permute(1, 2, 0).numpy()


def resampled(rows, columns, offset, antialias):
    def resample(grid):
        return resampled_positions(grid, SIDE, rows, columns, offset, antialias)

    return np.asarray(jax.jit(resample)(GRID)).reshape(rows, columns, -1)


@pytest.mark.parametrize(("rows", "columns"), [(32, 16), (20, 10), (50, 41)])
def test_positions_follow_the_scale_factors(rows, columns):
    scale = ((rows + 0.1) / SIDE, (columns + 0.1) / SIDE)
    expected = torch_resampled(scale_factor=scale)
    difference = np.abs(resampled(rows, columns, 0.1, False) - expected).max()
    assert difference < 1e-6  # values near 2 have a spacing of 2e-7; 16 of them are added
    ratio = torch_resampled(size=(rows, columns))
    assert np.abs(ratio - expected).max() > 1e-3  # what the size ratio would give


@pytest.mark.parametrize(("rows", "columns"), [(32, 16), (20, 45), (50, 41)])
def test_positions_with_antialias(rows, columns):
    expected = torch_resampled(size=(rows, columns), antialias=True)
    difference = np.abs(resampled(rows, columns, 0.0, True) - expected).max()
    assert difference < 2e-5  # source coordinates are exact here; PyTorch's have 24 bits


def test_positions_of_the_own_grid_are_left_alone():
    assert (resampled(SIDE, SIDE, 0.1, False).reshape(GRID.shape) == GRID).all()


@pytest.mark.parametrize(("height", "width"), [(448, 224), (300, 99), (100, 70), (256, 128)])
def test_frames(height, width):
    frames = fill.normalised(fill.frames(2, 256, 128, 5))
    channels_first = torch.tensor(frames).permute(0, 3, 1, 2)
    expected = interpolate(channels_first, size=(height, width), mode="bilinear")
    made = frames_resized(jnp.asarray(frames), height, width)
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert np.abs(made - expected).max() < 2e-6  # values up to 2.6, two products of two sums


@pytest.mark.parametrize(("source", "target"), [(32, 64), (16, 32), (5, 17), (9, 4), (1, 3)])
def test_bilinear_rows_are_weights(source, target):
    matrix = bilinear_matrix(source, target)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)  # 1 - t and t in float32
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-5)  # float32 coordinates

"""VLD's frames and figures as the published code has them, from the method's own settings."""

from pathlib import Path

import numpy as np
import pytest

from dinogrl_jax.data import sampling
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.methods import default
from dinogrl_jax.retrieval.directions import Direction, direction_results
from dinogrl_jax.retrieval.gallery import descriptor_set, no_junk, same_camera
from dinogrl_jax.retrieval.protocols import filters_cameras

ROOT = Path(__file__).parents[3]
CONFIG = default("vld")
DIRECTIONS = ("infrared_to_visible", "visible_to_infrared")
JUNK = {True: same_camera, False: no_junk}


@pytest.fixture(scope="module")
def golden():
    return np.load(ROOT / "tests/golden/clip_components.npz")


@pytest.mark.parametrize("name", ["vld_vcm", "vld_bupt"])
def test_the_configurations_are_usable(name):
    config = checked_config(read_config(str(ROOT / "configs" / f"{name}.py")))
    assert config.method == "vld" and config.evaluation.best == "infrared_to_visible.rank1"


@pytest.mark.parametrize("data", ["vcm", "bupt"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_figures(golden, data, direction):
    """Products of the numbers as they are; on VCM without the query's own camera."""
    config = read_config(str(ROOT / "configs" / f"vld_{data}.py"))
    filtered = filters_cameras(config.evaluation.protocol, config.evaluation.camera_filter)
    sets = {
        m: descriptor_set(*(golden[f"rank_{m}{end}"] for end in ("", "_pid", "_camera")))
        for m in ("infrared", "visible")
    }
    query, gallery = direction.split("_to_")
    found = {direction: Direction(sets[query], sets[gallery], JUNK[filtered])}
    result = direction_results(found, distance=config.evaluation.distance)[direction]
    expected = f"rank_vld_{data}_{direction}"
    # The published CMC is float32.
    np.testing.assert_allclose(result.cmc[:20], golden[f"{expected}_cmc"], atol=1e-7)
    np.testing.assert_allclose(result.mAP, golden[f"{expected}_mAP"], rtol=1e-12)


CASES = {  # query, gallery; mAP and CMC at 1 to 5, of figures that were written down
    "vcm": (0.35863095, [0.25, 0.5, 0.5, 0.75, 0.75]),
    "bupt-full": (0.39424603, [0.25, 0.5, 0.5, 0.75, 0.75]),
}


@pytest.mark.parametrize("protocol", CASES)
def test_figures_of_given_distances(protocol):
    """D[i, j] = sin(2.1i + 1.7j), by descriptors whose negative products are these."""
    i, j = np.arange(5)[:, None], np.arange(10)[:, None]
    query = -np.hstack([np.sin(2.1 * i), np.cos(2.1 * i)])
    gallery = np.hstack([np.cos(1.7 * j), np.sin(1.7 * j)])
    query = descriptor_set(query, np.array([1, 1, 2, 3, 9]), np.array([1, 2, 1, 3, 1]))
    identity, camera = [1, 1, 2, 2, 3, 3, 1, 2, 5, 1], [1, 2, 1, 3, 3, 1, 3, 2, 1, 1]
    gallery = descriptor_set(gallery, np.array(identity), np.array(camera))
    junk = JUNK[filters_cameras(protocol)]
    found = {"visible_to_infrared": Direction(query, gallery, junk)}
    (result,) = direction_results(found, distance="dot").values()
    mean, cmc = CASES[protocol]
    np.testing.assert_allclose(result.mAP, mean, atol=5e-9)
    np.testing.assert_allclose(result.cmc[:5], cmc)


def test_frames(golden):
    """Of tracklets of 1 … 60 frames."""
    rule, frames = sampling.TEST_CLIPS[CONFIG.data.test_frames], CONFIG.data.frames
    for n, expected in enumerate(golden["frames_first_per_chunk_6"], start=1):
        (found,) = rule(n, frames)
        np.testing.assert_array_equal(found, expected)


def test_random_frames(golden):
    """Each of the ten frames is drawn from the range that the published code draws it from."""
    rule, rng = sampling.TRAINING_FRAMES[CONFIG.data.training_frames], np.random.default_rng(0)
    for i, n in enumerate(golden["frames_random_lengths"]):
        drawn = np.stack([rule(int(n), 10, rng) for _ in range(400)])
        np.testing.assert_array_equal(drawn.min(0), golden["frames_random_lowest"][i])
        np.testing.assert_array_equal(drawn.max(0), golden["frames_random_highest"][i])

"""The small CLIP in tiny: what its file has, and that its loss brings pairs together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dinogrl_jax.data.walkers.captions import LENGTH, VOCABULARY
from dinogrl_jax.training.pretraining import walker_clip
from dinogrl_jax.weights.clip_files import clip_sizes, fitted
from dinogrl_jax.weights.conversion import to_variables

TEXT = {"width": 8, "depth": 1, "heads": 2, "positions": LENGTH}
CLIP = {"patch": 8, "stride": 8, "width": 8, "depth": 2, "heads": 2, "embedding": 6}
CLIP |= {"activation": "quick_gelu", "text": TEXT}
CONFIG = ConfigDict({"model": {"clip": CLIP}, "data": {"height": 32, "width": 16}})


@pytest.fixture(scope="module")
def state():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walker_clip, "SEEDS", (1, 2))
        return walker_clip.trained_state(CONFIG, identities=4, steps=2, batch=3)


def test_the_file_has_the_names_and_sizes_of_clips(state):
    sizes = clip_sizes(state)
    text = {key: TEXT[key] for key in ("width", "depth", "positions")}
    assert sizes == {**{key: CLIP[key] for key in sizes if key != "text"}, "text": text}
    assert state["token_embedding.weight"].shape == (len(VOCABULARY), TEXT["width"])
    assert all(np.isfinite(x).all() for x in state.values())


def test_positions_are_those_of_the_training_again(state):
    """A square of 4×4 is written, of which the model's 4×2 are means of equal numbers."""
    square = state[walker_clip.POSITIONS]
    own = fitted(state, (4, 2))[walker_clip.POSITIONS]
    assert square.shape == (17, CLIP["width"]) and own.shape == (9, CLIP["width"])
    again = walker_clip.square_positions({walker_clip.POSITIONS: own}, 4, 2)
    np.testing.assert_array_equal(again, square)


def test_the_loss_is_that_of_a_guess_until_pairs_are_alike():
    same, own = jnp.ones((4, 3)), jnp.eye(4)
    guess = float(walker_clip.contrastive_loss(same, same, 10.0))
    assert guess == pytest.approx(np.log(4), rel=1e-6)  # float32
    assert float(walker_clip.contrastive_loss(own, own, 10.0)) < 0.01


def test_materials_are_mirrored_with_their_frames():
    """Where a frame is bright on the left, its materials are too, mirrored or not."""
    materials = np.zeros((16, 8, 4, 1), np.uint8)
    materials[:, :, 0] = 255
    frames = np.repeat(np.repeat(materials, 4, 1), 4, 2).repeat(3, -1)
    x, y = walker_clip.augmented_frames(
        jax.random.key(0), jnp.asarray(frames), jnp.asarray(materials)
    )
    np.testing.assert_array_equal(np.asarray(x)[:, ::4, ::4, 0] > 0, np.asarray(y)[..., 0] > 0)
    assert len({row.tobytes() for row in np.asarray(y)}) == 2


def test_cells_are_those_of_their_patch_row_by_row():
    """Four rows of two cells, in patches of two by two: shares of a material, and of none."""
    materials = jnp.arange(8, dtype=jnp.uint8).reshape(1, 4, 2, 1) * 36
    cells = np.asarray(walker_clip.cells_of_patches(materials, 2, 1))
    assert cells.shape == (1, 2, 4, 2)
    np.testing.assert_allclose(cells[0, :, :, 0].ravel() * 255, np.arange(8) * 36, rtol=1e-5)
    np.testing.assert_allclose(cells.sum(-1), 1, rtol=1e-6)  # float32


def test_the_rate_rises_stays_and_falls_to_nothing():
    rates = [float(walker_clip.rate_factor(step, 1000)) for step in (0, 100, 200, 600, 800, 1000)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.5, 0], abs=1e-6)


def test_a_scaled_stream_has_the_same_vectors(state):
    """But for the epsilon of LayerNorms, 1e-5 beside variances of the scaled stream."""
    towers, frames = walker_clip.Towers(CONFIG.model.clip), jnp.ones((1, 32, 16, 3))
    frames = frames * jnp.linspace(-1, 1, 32)[:, None, None]
    ids = jnp.zeros((1, LENGTH), int)
    shapes = jax.eval_shape(towers.init, jax.random.key(0), frames, ids)

    def vectors(file):
        rows = fitted(file, (4, 2))
        found, _ = to_variables(rows, walker_clip.RULES, shapes, source_name="walker_clip")
        return jax.jit(towers.apply)(found, frames, ids)[0]

    scaled = walker_clip.with_scaled_stream(state, 2.0)
    assert not np.array_equal(scaled["visual.ln_pre.weight"], state["visual.ln_pre.weight"])
    np.testing.assert_allclose(vectors(scaled), vectors(state), rtol=2e-3, atol=2e-4)

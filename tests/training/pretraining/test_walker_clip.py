"""The small CLIP in tiny: what its file has, and that its loss brings pairs together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dinogrl_jax.data.walkers.captions import LENGTH, VOCABULARY
from dinogrl_jax.training.pretraining import walker_clip
from dinogrl_jax.weights.clip_files import clip_sizes, fitted

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


def test_outlines_move_with_their_frames():
    """Where a frame is bright on the left, its outline is too, mirrored and shifted alike."""
    outlines = np.zeros((16, 8, 4), bool)
    outlines[:, :, :1] = True
    frames = np.repeat(np.repeat(255 * outlines, 2, 1), 2, 2)[..., None].repeat(3, -1)
    given = jnp.asarray(frames, jnp.uint8), jnp.asarray(outlines)
    x, y = walker_clip.augmented_frames(jax.random.key(0), *given)
    seen = (x[:, ::2, ::2, 0] > 0).astype(jnp.float32)
    np.testing.assert_array_equal(seen, y)
    assert len({row.tobytes() for row in np.asarray(y)}) == 2

"""VLD's demo: its configuration, and the small CLIP that is shipped for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT

from dinogrl_jax.data.walkers.captioned import captioned_people
from dinogrl_jax.data.walkers.captions import IDS, LENGTH, VOCABULARY
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.methods import vld
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training.pretraining.walker_clip import (
    RULES,
    SEEDS,
    Towers,
    contrastive_loss,
    normalised,
)
from dinogrl_jax.training.start import with_published_weights
from dinogrl_jax.weights.clip_files import fitted
from dinogrl_jax.weights.conversion import to_variables
from dinogrl_jax.weights.files import torch_files


@pytest.fixture(scope="module")
def config():
    return checked_config(read_config(str(ROOT / "configs" / "synthetic_vld.py")))


@pytest.fixture(scope="module")
def state(config):
    return torch_files.read(config.pretrained.clip)


def test_a_training_starts_from_the_shipped_file(config, state):
    variables = initial_variables(vld.Model(config, Facts(identities=2)), config)
    found, lines = with_published_weights(vld, variables, config)
    assert len(lines) == 1 and f"weights of {config.pretrained.clip}" in lines[0]
    params, table = found["params"], state["token_embedding.weight"]
    assert len(table) == len(VOCABULARY)
    np.testing.assert_array_equal(params["prompts"]["prefix"][0], table[[IDS["<start>"], IDS["a"]]])
    np.testing.assert_array_equal(params["prompts"]["suffix"][0, 0], table[IDS["person"]])
    np.testing.assert_array_equal(params["prompts"]["suffix"][0, -1], table[IDS["<end>"]])
    np.testing.assert_array_equal(params["image"]["projection"], state["visual.proj"])


def test_the_sentence_has_the_length_of_captions(config):
    assert len(config.model.prompts.ids) == LENGTH == config.model.clip.text.positions


def test_the_shipped_towers_know_people_they_have_not_seen(config, state):
    """Of 32 others each frame is nearer to its own caption than a guess would be."""
    people = captioned_people([SEEDS[-1] + 1], 32, 64, 32, workers=0)
    frames, ids = (jnp.asarray(x[:, 0]) for x in (people.frames, people.captions))
    towers, key = Towers(config.model.clip), jax.random.key(0)
    frames = normalised(frames / 255.0)
    shapes = jax.eval_shape(towers.init, key, frames, ids)
    variables, _ = to_variables(fitted(state, (8, 4)), RULES, shapes, source_name="walker_clip")
    loss = float(contrastive_loss(*jax.jit(towers.apply)(variables, frames, ids)))
    assert loss < 0.7 * np.log(32)  # 0.48 ln 64 of 64

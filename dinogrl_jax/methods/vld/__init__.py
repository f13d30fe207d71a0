"""VLD (arXiv 2506.02439): CLIP on video, with tokens that frames exchange, and learned prompts."""

from dinogrl_jax.methods.contract import no_sweep as before_epoch
from dinogrl_jax.methods.vld.losses import training_loss
from dinogrl_jax.methods.vld.model import Model, descriptor, part_names
from dinogrl_jax.methods.vld.settings import settings
from dinogrl_jax.methods.vld.training import groups
from dinogrl_jax.methods.vld.weights import released_facts, released_files, starting_weights

TITLE = "VLD (arXiv 2506.02439)"
NEEDS_CAMERAS = False
VARIANTS = {  # of scripts/ablate.py
    "image tower": {"model.hub.on": "False", "model.prompts.on": "False"},
    "+ hub and aggregation": {"model.prompts.on": "False"},
    "+ prompts (complete)": {},
}


def pictures(config) -> dict:
    """None are drawn."""
    return {}

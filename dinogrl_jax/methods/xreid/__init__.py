"""X-ReID (arXiv 2511.17964): CLIP on video, prototypes of both modalities, and frames that meet."""

from dinogrl_jax.methods.xreid.cameras import check_tracklets
from dinogrl_jax.methods.xreid.losses import training_loss
from dinogrl_jax.methods.xreid.model import Model, descriptor, descriptor_variants, part_names
from dinogrl_jax.methods.xreid.settings import settings
from dinogrl_jax.methods.xreid.sweep import before_epoch
from dinogrl_jax.methods.xreid.training import groups
from dinogrl_jax.methods.xreid.weights import released_facts, released_files, starting_weights

TITLE = "X-ReID (arXiv 2511.17964)"
NEEDS_CAMERAS = True
VARIANTS = {  # of scripts/ablate.py
    "image tower": {"model.sii.on": "False", "model.prototypes.on": "False"},
    "+ prototypes": {"model.sii.on": "False"},
    "+ interactions (as released)": {},
    "+ LII, as in the paper": {"model.lii.on": "True"},
    "+ CII, as in the paper": {"model.lii.on": "True", "model.cii.on": "True"},
}


def pictures(config) -> dict:
    """None are drawn."""
    return {}

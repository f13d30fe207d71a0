"""DinoGRL (arXiv 2511.04281): gait from frozen DINOv2 tokens beside appearance, part by part."""

from dinogrl_jax.methods.contract import no_sweep as before_epoch
from dinogrl_jax.methods.dinogrl.losses import training_loss
from dinogrl_jax.methods.dinogrl.model import Model, descriptor, part_names
from dinogrl_jax.methods.dinogrl.pictures import pictures
from dinogrl_jax.methods.dinogrl.settings import settings
from dinogrl_jax.methods.dinogrl.training import groups
from dinogrl_jax.methods.dinogrl.weights import released_facts, released_files, starting_weights

TITLE = "DinoGRL (arXiv 2511.04281)"
NEEDS_CAMERAS = False
VARIANTS = {  # of scripts/ablate.py
    "appearance stream": {"model.streams": "('appearance',)", "model.pbmge": "False"},
    "+ SASGL": {"model.pbmge": "False"},
    "+ PBMGE (complete)": {},
}

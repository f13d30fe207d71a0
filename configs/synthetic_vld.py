"""VLD in small, on walking people that the package renders itself.

    python scripts/train.py --config configs/synthetic_vld.py

Generates the data set on the first run, trains and evaluates on 2 CPU cores. CLIP's weights cannot
be shipped; walker_clip.pth, of scripts/pretrain.py, stands in for them.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.data.walkers.captions import ANYWHERE, LENGTH, token_ids
from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("vld")
    data, model = config.data, config.model
    data.dataset, data.root = "synthetic", "data/synthetic"
    data.height, data.width = 64, 32
    data.synthetic.update({"train_identities": 120, "height": 64, "width": 32})
    data.identities_per_batch, data.tracklets_per_identity = 8, 2
    data.frames = 3
    config.augment.pad, config.augment.erase = 3, 0.2
    model.clip.update(
        {"patch": 8, "stride": 8, "width": 96, "depth": 4, "heads": 3, "embedding": 64}
    )
    model.clip.text.update({"width": 96, "depth": 2, "heads": 3, "positions": LENGTH})
    model.hub.update({"frames": 3, "start": 1})
    model.prompts.ids = token_ids(f"a x x x x person {ANYWHERE}")
    model.remat = "nothing"  # there is memory for all of it
    config.loss.hub_identity = 1.0  # the hub knows nothing yet, and the tower does
    config.optimizer.learning_rate, config.optimizer.head_multiplier = 1e-3, 4.0
    config.optimizer.bias_multiplier = 1.0
    config.optimizer.warmup_epochs, config.optimizer.cosine_epochs = 2, 16
    config.train.update({"epochs": 16, "steps_per_epoch": 25, "log_every": 25})
    config.train.update({"evaluate_every": 16, "checkpoint_every": 4})
    config.pretrained.clip = str(Path(__file__).with_name("walker_clip.pth"))
    return config

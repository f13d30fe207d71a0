"""X-ReID in small, on walking people that the package renders itself.

    python scripts/train.py --config configs/synthetic_xreid.py

Generates the data set on the first run, trains and evaluates on 2 CPU cores. CLIP's weights cannot
be shipped; walker_clip.pth, of scripts/pretrain.py, stands in for them.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("xreid")
    data, model, optimizer = config.data, config.model, config.optimizer
    data.dataset, data.root = "synthetic", "data/synthetic"
    data.height, data.width = 64, 32
    data.synthetic.update({"train_identities": 120, "height": 64, "width": 32})
    data.batch_rule = "identity"  # the published list would leave out four tracklets in ten
    data.identities_per_batch, data.tracklets_per_identity = 8, 2
    data.frames = 3
    model.clip.update(
        {"patch": 8, "stride": 8, "width": 96, "depth": 4, "heads": 3, "embedding": 64}
    )
    model.remat = "nothing"  # there is memory for all of it
    optimizer.learning_rate, optimizer.bias_multiplier = 5e-4, 1.0
    optimizer.classifier_multiplier = optimizer.interaction_multiplier = 3.0
    optimizer.warmup_epochs, optimizer.decay_epochs = 2, (14, 18)
    config.train.update({"epochs": 20, "steps_per_epoch": 50, "log_every": 25})
    config.train.update({"evaluate_every": 10, "checkpoint_every": 2})
    config.pretrained.clip = str(Path(__file__).with_name("walker_clip.pth"))
    return config

"""DinoGRL in small, on walking people that the package renders itself.

    python scripts/train.py --config configs/synthetic.py

Generates the data set on the first run, trains and evaluates on 2 CPU cores. DINOv2's weights
cannot be shipped; walker_vit.pth, of scripts/pretrain.py, stands in for them.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("dinogrl")
    data, model = config.data, config.model
    data.dataset, data.root = "synthetic", "data/synthetic"
    data.height, data.width = 64, 32
    data.synthetic.update({"train_identities": 120, "height": 64, "width": 32})
    data.identities_per_batch, data.tracklets_per_identity = 8, 2
    data.frames = 3
    config.augment.pad, config.augment.erase = 3, 0.2
    model.parts = (1, 2, 4, 8)
    model.embedding = 64
    model.resnet.stages, model.resnet.width = (1, 1, 1), 16
    model.dinov2.update(
        {"height": 64, "width": 32, "patch": 8, "grid": 8, "embedding": 96, "depth": 4, "heads": 3}
    )
    model.dinov2.taps = (0, 1, 2, 3)
    model.sasgl.hidden, model.sasgl.pre_channels = 64, 16
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs, config.optimizer.decay_epochs = 2, (28, 36)
    config.train.update({"epochs": 40, "steps_per_epoch": 25, "log_every": 25})
    config.train.update({"evaluate_every": 20, "checkpoint_every": 5})
    config.pretrained.dinov2 = str(Path(__file__).with_name("walker_vit.pth"))
    return config

"""DinoGRL on BUPTCampus (arXiv 2511.04281, ACM MM 2025): 8 identities × 2 aligned pairs a batch.

    python scripts/train.py --config configs/bupt.py --config.data.root=BUPTCampus \
        --config.pretrained.dinov2=dinov2_vits14_pretrain.pth \
        --config.pretrained.resnet50=resnet50-0676ba61.pth \
        --config.pretrained.mask_branch=MaskBranch_vits14.pt

Expected: to be filled from arXiv 2511.04281, Tables 1-2; nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("dinogrl")
    config.data.dataset = "bupt"
    config.data.identities_per_batch, config.data.tracklets_per_identity = 8, 2
    config.data.batch_rule = "camera-pairs"
    config.data.training_frames, config.data.test_frames = "sorted-random", "uniform"
    config.data.minimum_frames = 1  # the published loader keeps every tracklet
    config.evaluation.protocol = "bupt-full"
    return config

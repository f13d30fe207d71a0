"""VLD on BUPTCampus (arXiv 2506.02439, IEEE TIFS 2025): 8 identities × 2 aligned pairs a batch.

    python scripts/train.py --config configs/vld_bupt.py --config.data.root=BUPTCampus \
        --config.pretrained.clip=ViT-B-16.pt

The published code scores as evaluation.protocol=bupt-official-drop64 does, which drops the visible
tracklets of an incomplete last batch; bupt-full, the default, has all. Published (in percent, from
Table 2 of X-ReID, AAAI 2026): infrared to visible rank-1 66.7, rank-5 85.8, mAP 66.0; visible to
infrared 67.4, 84.2, 64.1. Nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("vld")
    config.data.dataset = "bupt"
    config.data.identities_per_batch, config.data.tracklets_per_identity = 8, 2
    config.data.batch_rule = "camera-pairs"
    config.data.training_frames, config.data.test_frames = "sorted-random", "uniform"
    config.data.minimum_frames = 1  # the published loader keeps every tracklet
    config.evaluation.protocol = "bupt-full"
    config.evaluation.tracklets_per_batch = 64
    return config

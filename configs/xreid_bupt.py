"""X-ReID on BUPTCampus (arXiv 2511.17964, AAAI 2026). The released code does not run on it.

    python scripts/train.py --config configs/xreid_bupt.py --config.data.root=BUPTCampus \
        --config.pretrained.clip=ViT-B-16.pt

Published (in percent, of the paper's whole method): infrared to visible rank-1 68.2, rank-5 88.4,
mAP 68.5; visible to infrared 68.8, 84.8, 65.9. The released code would score with the camera rule,
and its queries from visible to infrared are the gallery of the other direction: so does
evaluation.protocol=bupt-transposed. Nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    config = default("xreid")
    config.data.dataset = "bupt"
    config.data.minimum_frames = 2  # the published reader leaves out tracklets of one frame
    config.evaluation.protocol = "bupt-full"
    config.model.cameras.first = 0  # number of the data set's first camera
    return config

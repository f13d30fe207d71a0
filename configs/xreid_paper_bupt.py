"""X-ReID on BUPTCampus as its paper describes it (arXiv 2511.17964, AAAI 2026).

    python scripts/train.py --config configs/xreid_paper_bupt.py --config.data.root=BUPTCampus \
        --config.pretrained.clip=ViT-B-16.pt

No code of this has been released, and the paper leaves much open: settings say what is chosen.
Published (in percent): infrared to visible rank-1 68.2, mAP 68.5; visible to infrared 68.8, 65.9.
Nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default
from dinogrl_jax.methods.xreid.settings import set_as_in_the_paper


def get_config() -> ConfigDict:
    config = default("xreid")
    set_as_in_the_paper(config)
    config.data.dataset = "bupt"
    config.data.minimum_frames = 2  # the published reader leaves out tracklets of one frame
    config.evaluation.protocol = "bupt-full"
    return config

"""X-ReID on HITSZ-VCM as its paper describes it (arXiv 2511.17964, AAAI 2026).

    python scripts/train.py --config configs/xreid_paper_vcm.py --config.data.root=HITSZ-VCM \
        --config.pretrained.clip=ViT-B-16.pt

No code of this has been released, and the paper leaves much open: settings say what is chosen.
Published (in percent): infrared to visible rank-1 73.4, mAP 60.5; visible to infrared 76.1, 59.6.
Nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default
from dinogrl_jax.methods.xreid.settings import set_as_in_the_paper


def get_config() -> ConfigDict:
    config = default("xreid")
    set_as_in_the_paper(config)
    return config

"""VLD on HITSZ-VCM (arXiv 2506.02439, IEEE TIFS 2025).

    python scripts/train.py --config configs/vld_vcm.py --config.data.root=HITSZ-VCM \
        --config.pretrained.clip=ViT-B-16.pt

Published figures: none were found for this data set; nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    return default("vld")

"""X-ReID on HITSZ-VCM (arXiv 2511.17964, AAAI 2026), as its released code trains it.

    python scripts/train.py --config configs/xreid_vcm.py --config.data.root=HITSZ-VCM \
        --config.pretrained.clip=ViT-B-16.pt

The release has less than the paper; of the paper's ablations, CPC + SII is nearest to it. Published
for that (in percent, Table 5): infrared to visible rank-1 71.5, mAP 58.9; visible to infrared 73.6,
57.6. Published for the paper's whole method: 73.4, 60.5; 76.1, 59.6. Nothing has been trained here
yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    return default("xreid")

"""DinoGRL on HITSZ-VCM (arXiv 2511.04281, ACM MM 2025).

    python scripts/train.py --config configs/vcm.py --config.data.root=HITSZ-VCM \
        --config.pretrained.dinov2=dinov2_vits14_pretrain.pth \
        --config.pretrained.resnet50=resnet50-0676ba61.pth \
        --config.pretrained.mask_branch=MaskBranch_vits14.pt

Every published starting point is a PyTorch file or what scripts/convert.py made of it; the script
says which is missing and where people get it.

Expected: to be filled from arXiv 2511.04281, Tables 1-2; nothing has been trained here yet.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods import default


def get_config() -> ConfigDict:
    return default("dinogrl")

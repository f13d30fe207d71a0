"""What a file or a state dict is where it is not what was asked for: for the line that says so."""

import re
from collections.abc import Iterable

from dinogrl_jax.weights.files.torch_types import printable

FORMATS = [  # what a file begins with → what it is, {} for what the expression finds
    (
        rb"version https://git-lfs.{0,300}?\nsize (\d{1,15})",
        "is a git-LFS pointer to {} bytes, not the weights: run git lfs pull",
    ),
    (
        rb"\s*(?:<!--.{0,300}?-->\s*)?<(?:!doctype html|html|head)\b"
        rb"(?:.*?<title[^>]{0,80}>\s*([^<]{1,80}))?",
        "is a web page ({}), not the weights: open its address in a browser to download the file",
    ),
    (rb"\s*<\?xml", "is an XML answer of a server, not the weights: download the file again"),
    (rb"\s*\{", "is JSON, not weights"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "is compressed: unpack it"),
    (rb"\x89HDF", "is HDF5, as Keras writes it, not PyTorch's"),
    (rb"\x93NUMPY", "is an array of NumPy, not a state dict"),
    (rb"GGUF", "is GGUF, not PyTorch's"),
    (rb"[\x00-\x0a].{0,40}(?:pytorch|onnx)", "is ONNX, not PyTorch's"),
    (
        rb".{257}ustar",
        "is a tar archive; unpack it or, if PyTorch wrote it, save it again: "
        "torch.save(torch.load(f, weights_only=True), f)",
    ),
    (rb"\x80[\x02-\x05]", "is a pickle that torch.save did not write (or is truncated)"),
]

OWNERS = [  # a key that only these models have → whose it is; the first that fits
    (r"(^|\.)_flat_param\b", "flat shards of FSDP: gather its full state dict"),
    (r"rope_embed\.|storage_tokens$|layer\.\d+\.attention\.q_proj", "DINOv3"),
    (r"attnpool\.", "CLIP with a ResNet"),
    (r"visual\.transformer\.resblocks", "OpenAI's CLIP"),
    (r"vision_model\.encoder\.layers\.\d", "a vision model of Hugging Face (CLIP, SigLIP)"),
    (r"relative_position_bias_table$", "Swin"),
    (r"(^|\.)stages\.\d+\.(\d+|blocks\.\d+|layers\.\d+)\.(gamma|dwconv|layer_scale)", "ConvNeXt"),
    (r"\.bn\d\.IN\.", "ResNet-IBN, half of whose normalisation is by instance"),
    (r"layer\d\.\d+\.(se|conv2\.fc\d)\.", "a ResNet with squeeze and excitation"),
    (r"(^|\.)conv1\.0\.weight$", "a ResNet whose stem has three convolutions (timm's -d, -s)"),
    (r"word_embeddings\.weight$|embed_tokens\.weight$", "a language model"),
    (r"encoder\.layer\.\d+\.layer_scale1\.", "DINOv2 by Hugging Face's names"),
    (r"encoder\.layer\.\d+\.attention\.", "a transformer by Hugging Face's names"),
    (r"encoder\.layers\.encoder_layer_\d", "torchvision's vision transformer"),
    (r"(^|\.)blocks\.(\d+\.)+ls1\.", "DINOv2"),
    (r"(^|\.)blocks\.\d+\.attn\.qkv\.", "a vision transformer (DINO, MAE, timm)"),
    (r"layer1\.\d+\.conv3\.", "a ResNet of three convolutions a block (ResNet-50, -101, -152)"),
    (r"layer1\.\d+\.conv2\.", "a ResNet of two convolutions a block (ResNet-18, -34)"),
    (r"encoder\.stages\.\d+\.layers\.\d+\.layer\.", "a ResNet by Hugging Face's names"),
    (r"(^|\.)features\.\d+\.", "VGG, MobileNet, DenseNet or the like of torchvision"),
    (r"(^|\.)model\.\d+\.(conv|cv\d|m|bn)\.", "YOLO"),
    (r"lora_[AB]\.|lora_(down|up)\.", "LoRA, which is no weights without those it was trained on"),
]


def format_of(head: bytes) -> str | None:
    """What a file that begins like this is; None for what nobody knows."""
    for expression, title in FORMATS:
        if match := re.match(expression, head, re.DOTALL | re.IGNORECASE):
            found = b" ".join(group.strip() for group in match.groups() if group)
            return title.format(printable(found.decode("utf-8", "replace"))).replace(" ()", "")
    return None


def owner_of(names: Iterable[str]) -> str | None:
    """Whose model has tensors of these names; None for what nobody knows."""
    names = list(names)
    for expression, title in OWNERS:
        pattern = re.compile(expression)
        if any(pattern.search(name) for name in names):
            return title
    return None

"""Small state dicts of seeded numbers by the names of the published files."""

import numpy as np


def seeded(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.random(shape, np.float32) for key, shape in shapes.items()}


def dinov2(registers: int = 0, gated: bool = False, c: int = 4, grid: int = 3) -> dict:
    """DINOv2 of two blocks, patches of 2×2 pixels."""
    shapes = {"cls_token": (1, 1, c), "pos_embed": (1, 1 + grid**2, c), "mask_token": (1, c)}
    if registers:
        shapes["register_tokens"] = (1, registers, c)
    shapes |= {"patch_embed.proj.weight": (c, 3, 2, 2), "patch_embed.proj.bias": (c,)}
    layers = {"attn.qkv": (3 * c, c), "attn.proj": (c, c)}
    gates = {"mlp.w12": (6 * c, c), "mlp.w3": (c, 3 * c)}
    layers |= gates if gated else {"mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c)}
    for block in ("blocks.0.", "blocks.1."):
        for layer, shape in layers.items():
            shapes |= {f"{block}{layer}.weight": shape, f"{block}{layer}.bias": shape[:1]}
        for n in "12":
            shapes |= {f"{block}norm{n}.weight": (c,), f"{block}norm{n}.bias": (c,)}
            shapes[f"{block}ls{n}.gamma"] = (c,)
    return seeded({**shapes, "norm.weight": (c,), "norm.bias": (c,)})


def resnet(stages: tuple[int, ...] = (1, 2), width: int = 2) -> dict:
    """A ResNet of bottlenecks without its classifier."""

    def norm(name: str, channels: int) -> dict:
        parts = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{part}": (channels,) for part in parts}

    shapes = {"conv1.weight": (width, 3, 7, 7), **norm("bn1", width)}
    channels = width
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            name, narrow = f"layer{stage}.{block}", width * 2 ** (stage - 1)
            sizes = [(narrow, channels, 1), (narrow, narrow, 3), (4 * narrow, narrow, 1)]
            for n, (out, into, side) in enumerate(sizes, start=1):
                shapes[f"{name}.conv{n}.weight"] = (out, into, side, side)
                shapes |= norm(f"{name}.bn{n}", out)
            if not block:
                shapes[f"{name}.downsample.0.weight"] = (4 * narrow, channels, 1, 1)
                shapes |= norm(f"{name}.downsample.1", 4 * narrow)
            channels = 4 * narrow
    return seeded(shapes)


def behind(prefix: str, state: dict) -> dict:
    """A state dict whose keys have a prefix."""
    return {prefix + key: value for key, value in state.items()}

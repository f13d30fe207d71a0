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


CLIP_SENTENCE = (7, 3, 5, 5, 2, 8)  # of clip()'s tokens; 5 stands for learned words


def clip(depth: int = 2, patch: int = 2, grid: int = 3, width: int = 8, tokens: int = 9) -> dict:
    """OpenAI's CLIP: towers of `width` and 6 channels, a space of 4, a text of 7 tokens.

    Numbers are what float16 has, as in the published file.
    """

    def tower(prefix: str, c: int) -> dict:
        shapes = {}
        for i in range(depth):
            block = f"{prefix}transformer.resblocks.{i}."
            layers = {"attn.out_proj": (c, c), "mlp.c_fc": (4 * c, c), "mlp.c_proj": (c, 4 * c)}
            shapes |= {f"{block}attn.in_proj_weight": (3 * c, c)}
            shapes |= {f"{block}attn.in_proj_bias": (3 * c,)}
            for layer, shape in layers.items():
                shapes |= {f"{block}{layer}.weight": shape, f"{block}{layer}.bias": shape[:1]}
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"{block}{norm}.weight": (c,), f"{block}{norm}.bias": (c,)}
        return shapes

    shapes = {"positional_embedding": (7, 6), "text_projection": (6, 4), "logit_scale": ()}
    shapes |= {"visual.class_embedding": (width,), "visual.proj": (width, 4)}
    shapes |= {"visual.positional_embedding": (1 + grid**2, width)}
    shapes |= {"visual.conv1.weight": (width, 3, patch, patch)}
    for norm in ("visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    shapes |= {**tower("visual.", width), **tower("", 6), "token_embedding.weight": (tokens, 6)}
    shapes |= {"ln_final.weight": (6,), "ln_final.bias": (6,)}
    state = {k: np.asarray(x, np.float16).astype("f4") for k, x in seeded(shapes).items()}
    numbers = {"input_resolution": patch * grid, "context_length": 7, "vocab_size": tokens}
    return state | {key: np.asarray(number, np.int64) for key, number in numbers.items()}


def clip_of_open_clip(state: dict) -> dict:
    """The same by open_clip's names: OpenAI's without its three numbers."""
    return {key: x for key, x in state.items() if x.dtype != np.int64}


def clip_of_hugging_face(state: dict) -> dict:
    """The same by Hugging Face's names: queries, keys and values apart, projections turned."""
    made = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
    }
    layers = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    layers |= {"ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "ln_final": "text_model.final_layer_norm",
    }
    norms |= {"visual.ln_post": "vision_model.post_layernorm"}
    for end in ("weight", "bias"):
        made |= {f"{norms[name]}.{end}": state[f"{name}.{end}"] for name in norms}
    for prefix, model in (("visual.", "vision_model"), ("", "text_model")):
        positions = state[f"{prefix}positional_embedding"]
        made[f"{model}.embeddings.position_embedding.weight"] = positions
        made[f"{model}.embeddings.position_ids"] = np.arange(len(positions))[None]
        for i in range(sum(key.endswith("ln_1.bias") for key in state) // 2):
            old, new = f"{prefix}transformer.resblocks.{i}.", f"{model}.encoder.layers.{i}."
            for end in ("weight", "bias"):
                pieces = np.split(state[f"{old}attn.in_proj_{end}"], 3)
                for name, piece in zip("qkv", pieces, strict=True):
                    made[f"{new}self_attn.{name}_proj.{end}"] = piece
                made |= {f"{new}{layers[x]}.{end}": state[f"{old}{x}.{end}"] for x in layers}
    return made


def behind(prefix: str, state: dict) -> dict:
    """A state dict whose keys have a prefix."""
    return {prefix + key: value for key, value in state.items()}

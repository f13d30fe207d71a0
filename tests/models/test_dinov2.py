"""DINOv2 against a re-statement in PyTorch, and the keys of its published files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.ops import forms
from dinogrl_jax.weights.conversion import ConversionError, to_state, to_variables
from dinogrl_jax.weights.published import dinov2_rules, dinov2_settings

FLOAT32 = jnp.dtype("float32")
SIZES = {  # embedding, depth, heads, MLP, parameters of the published model without registers
    "vits14": (384, 12, 6, "gelu", 22_056_576),
    "vitb14": (768, 12, 12, "gelu", 86_580_480),
    "vitl14": (1024, 24, 16, "gelu", 304_368_640),
    "vitg14": (1536, 40, 24, "swiglu", 1_136_480_768),
}


def entries(embedding, depth, mlp, registers, grid=37, patch=14):
    """Key and shape of every entry of a published file, written from its code."""
    c = embedding
    hidden = 4 * c
    yield "cls_token", (1, 1, c)
    yield "pos_embed", (1, 1 + grid**2, c)
    if registers:
        yield "register_tokens", (1, registers, c)
    yield "mask_token", (1, c)
    yield "patch_embed.proj.weight", (c, 3, patch, patch)
    yield "patch_embed.proj.bias", (c,)
    layers = {"attn.qkv": (3 * c, c), "attn.proj": (c, c)}
    if mlp == "swiglu":
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        layers |= {"mlp.w12": (2 * hidden, c), "mlp.w3": (c, hidden)}
    else:
        layers |= {"mlp.fc1": (hidden, c), "mlp.fc2": (c, hidden)}
    for i in range(depth):
        for n in (1, 2):
            yield f"blocks.{i}.norm{n}.weight", (c,)
            yield f"blocks.{i}.norm{n}.bias", (c,)
            yield f"blocks.{i}.ls{n}.gamma", (c,)
        for name, shape in layers.items():
            yield f"blocks.{i}.{name}.weight", shape
            yield f"blocks.{i}.{name}.bias", shape[:1]
    yield "norm.weight", (c,)
    yield "norm.bias", (c,)


def configuration(state, **changes):
    sizes = {"height": 448, "width": 224, "mlp_ratio": 4.0}
    return ConfigDict({**sizes, **dinov2_settings(state), **changes})


def shapes_of(config):
    frames = jax.ShapeDtypeStruct((1, config.height, config.width, 3), jnp.float32)
    return jax.eval_shape(DINOv2(config, FLOAT32).init, jax.random.key(0), frames)


def seeded(entries):
    rng = np.random.default_rng(0)
    state = {}
    for key, shape in entries:
        scale = 0.5 if len(shape) < 2 or key.endswith(("token", "tokens", "embed")) else 1.0
        fan_in = 1 if scale < 1 else int(np.prod(shape[1:]))
        state[key] = (scale * rng.standard_normal(shape) / fan_in**0.5).astype(np.float32)
    return state


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", SIZES)
def test_every_published_key_has_its_place(size, registers):
    embedding, depth, heads, mlp, parameters = SIZES[size]
    listed = dict(entries(embedding, depth, mlp, registers))
    count = sum(int(np.prod(shape)) for shape in listed.values())
    assert count == parameters + registers * embedding
    depth = min(depth, 2)  # all blocks are alike, and ViT-g has 4 GiB
    shapes = dict(entries(embedding, depth, mlp, registers))
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    config = configuration(state, taps=(0, 1))
    assert (config.embedding, config.heads, config.mlp) == (embedding, heads, mlp)
    assert (config.depth, config.registers, config.grid) == (depth, registers, 37)
    assert (config.antialias, config.offset) == ((True, 0.0) if registers else (False, 0.1))
    variables, _ = to_variables(state, dinov2_rules(embedding), shapes_of(config), source_name=size)
    back, _ = to_state(variables, dinov2_rules(embedding))
    assert {key: array.shape for key, array in back.items()} == shapes


def test_taps_are_the_last_blocks_of_the_quarters():
    state = {key: np.broadcast_to(0.0, s) for key, s in entries(384, 12, "gelu", 0)}
    assert dinov2_settings(state)["taps"] == (2, 5, 8, 11)


def test_another_size_is_refused():
    base = {key: np.broadcast_to(np.float32(0), s) for key, s in entries(768, 12, "gelu", 0)}
    small = {key: np.broadcast_to(np.float32(0), s) for key, s in entries(384, 12, "gelu", 0)}
    shapes = shapes_of(configuration(small))
    with pytest.raises(ConversionError) as caught:
        to_variables(base, dinov2_rules(384), shapes, source_name="vitb.pth")
    first = str(caught.value).splitlines()[0]
    assert first.startswith("vitb.pth: cannot be converted: cls_token: has shape (1, 1, 768)")


def torch_dinov2(state, frames, config):
    """Tokens after the final norm and after each tapped block, [f, n, c], from the paper's code."""
    p = {key: torch.tensor(value) for key, value in state.items()}
    c, rows, columns = config.embedding, config.height // config.patch, config.width // config.patch
    x = torch.tensor(frames).permute(0, 3, 1, 2)
    x = F.interpolate(x, size=(config.height, config.width), mode="bilinear", align_corners=False)
    x = F.conv2d(x, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=config.patch)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    grid = p["pos_embed"][:, 1:].reshape(1, config.grid, config.grid, c).permute(0, 3, 1, 2)
    if config.offset:
        scale = [(n + config.offset) / config.grid for n in (rows, columns)]
        options = {"scale_factor": scale}
    else:
        options = {"size": (rows, columns)}
    grid = F.interpolate(grid, mode="bicubic", antialias=config.antialias, **options)
    x = x + torch.cat([p["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], 1)
    if config.registers:
        registers = p["register_tokens"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
    patches = slice(1 + config.registers, None)
    tapped = []
    for i in range(config.depth):
        x = torch_block(x, lambda name, i=i: p[f"blocks.{i}.{name}"], config)
        if i in config.taps:
            tapped.append(x[:, patches])
    last = F.layer_norm(x, (c,), p["norm.weight"], p["norm.bias"], 1e-6)[:, patches]
    taps = torch.cat(tapped, -1)
    return last.numpy(), F.layer_norm(taps, taps.shape[-1:], eps=1e-6).numpy()


def torch_block(x, p, config):
    f, n, c = x.shape
    y = F.layer_norm(x, (c,), p("norm1.weight"), p("norm1.bias"), 1e-6)
    qkv = F.linear(y, p("attn.qkv.weight"), p("attn.qkv.bias"))
    q, k, v = qkv.reshape(f, n, 3, config.heads, -1).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(f, n, c)
    x = x + p("ls1.gamma") * F.linear(y, p("attn.proj.weight"), p("attn.proj.bias"))
    y = F.layer_norm(x, (c,), p("norm2.weight"), p("norm2.bias"), 1e-6)
    if config.mlp == "swiglu":
        gate, value = F.linear(y, p("mlp.w12.weight"), p("mlp.w12.bias")).chunk(2, -1)
        y = F.linear(F.silu(gate) * value, p("mlp.w3.weight"), p("mlp.w3.bias"))
    else:
        y = F.gelu(F.linear(y, p("mlp.fc1.weight"), p("mlp.fc1.bias")))
        y = F.linear(y, p("mlp.fc2.weight"), p("mlp.fc2.bias"))
    return x + p("ls2.gamma") * y


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_tokens_are_pytorchs(mlp, registers, form):
    state = seeded(entries(64, 4, mlp, registers, grid=7, patch=8))
    config = configuration(state, heads=2, height=80, width=40)
    frames = np.random.default_rng(1).standard_normal((3, 64, 32, 3)).astype(np.float32)
    variables, _ = to_variables(state, dinov2_rules(64), shapes_of(config), source_name="small")
    with forms.using(form, "cpu"):
        tokens = jax.jit(DINOv2(config, FLOAT32).apply)(variables, frames)
    expected = torch_dinov2(state, frames, config)
    for made, published in zip(tokens, expected, strict=True):
        assert made.shape[1:3] == (10, 5)
        difference = np.abs(np.asarray(made).reshape(published.shape) - published).max()
        assert difference < 2e-5 * published.std()  # float32 over four blocks

"""Other owners' names for the tensors of published files, as templates of `rules`."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dinogrl_jax.weights.rules import fields_of_name, filled_template


class Spelling(NamedTuple):
    """Names of one owner: templates of `rules`, behind any prefix, → those of the published file.

    A published name that ends in a space and a number is a piece of that tensor; the pieces are
    laid one behind the other along their first axis.
    """

    mark: str  # a template that only names of this spelling fit
    names: Mapping[str, str]

    def respelt(self, name: str) -> tuple[str, int]:
        """The published name of a name, which stays if no template fits it, and which piece."""
        for theirs, published in self.names.items():
            if (fields := fields_of_name(BEFORE + theirs, name)) is not None:
                published, _, piece = published.partition(" ")
                return filled_template(BEFORE + published, fields), int(piece or 0)
        return name, 0


BEFORE = "{before:(?:.+[.])?}"  # any prefix
LAYER = "encoder.layer.{i:[0-9]+}."
AS_PUBLISHED = Spelling("", {})
CHUNKS = Spelling(  # DINOv2's training code, whose blocks stand in chunks
    "blocks.{c:[0-9]+}.{i:[0-9]+}.norm1.weight",
    {"blocks.{c:[0-9]+}.{i:[0-9]+}.{rest:.+}": "blocks.{i}.{rest}"},
)
TIMM = Spelling("reg_token", {"reg_token": "register_tokens"})
DINOV2_OF_HUGGING_FACE = Spelling(
    "embeddings.patch_embeddings.projection.weight",
    {
        "embeddings.{name:cls_token|mask_token|register_tokens}": "{name}",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.{w}": "patch_embed.proj.{w}",
        f"{LAYER}norm{{n:[12]}}.{{w}}": "blocks.{i}.norm{n}.{w}",
        f"{LAYER}attention.attention.query.{{w}}": "blocks.{i}.attn.qkv.{w} 0",
        f"{LAYER}attention.attention.key.{{w}}": "blocks.{i}.attn.qkv.{w} 1",
        f"{LAYER}attention.attention.value.{{w}}": "blocks.{i}.attn.qkv.{w} 2",
        f"{LAYER}attention.output.dense.{{w}}": "blocks.{i}.attn.proj.{w}",
        f"{LAYER}layer_scale{{n:[12]}}.lambda1": "blocks.{i}.ls{n}.gamma",
        f"{LAYER}mlp.{{layer:fc[12]}}.{{w}}": "blocks.{i}.mlp.{layer}.{w}",
        f"{LAYER}mlp.weights_in.{{w}}": "blocks.{i}.mlp.w12.{w}",
        f"{LAYER}mlp.weights_out.{{w}}": "blocks.{i}.mlp.w3.{w}",
        "layernorm.{w}": "norm.{w}",
    },
)
CLIP_LAYER = "encoder.layers.{i:[0-9]+}."
CLIP_OF_HUGGING_FACE = Spelling(
    "vision_model.pre_layrnorm.weight",
    {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.pre_layrnorm.{w}": "visual.ln_pre.{w}",
        "vision_model.post_layernorm.{w}": "visual.ln_post.{w}",
        "visual_projection.weight": "visual.proj",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.{w}": "ln_final.{w}",
        "text_projection.weight": "text_projection",
        **{
            f"{theirs}.{name}": f"{published}{place}"
            for theirs, published in (("vision_model", "visual."), ("text_model", ""))
            for name, place in [
                ("embeddings.position_embedding.weight", "positional_embedding"),
                *(
                    (f"{CLIP_LAYER}{name}", f"transformer.resblocks.{{i}}.{place}")
                    for name, place in [
                        ("self_attn.q_proj.{w}", "attn.in_proj_{w} 0"),
                        ("self_attn.k_proj.{w}", "attn.in_proj_{w} 1"),
                        ("self_attn.v_proj.{w}", "attn.in_proj_{w} 2"),
                        ("self_attn.out_proj.{w}", "attn.out_proj.{w}"),
                        ("layer_norm{n:[12]}.{w}", "ln_{n}.{w}"),
                        ("mlp.fc1.{w}", "mlp.c_fc.{w}"),
                        ("mlp.fc2.{w}", "mlp.c_proj.{w}"),
                    ]
                ),
            ]
        },
    },
)
# Matrices that Hugging Face's CLIP has as linear layers, and the published files the other way.
TURNED = re.compile(r"(?:.+[.])?(?:visual|text)_projection[.]weight")
RESNET_OF_HUGGING_FACE = Spelling(
    "embedder.embedder.convolution.weight",
    {
        "embedder.embedder.convolution.weight": "conv1.weight",
        "embedder.embedder.normalization.{w}": "bn1.{w}",
        **{
            f"encoder.stages.{s}.layers.{{b}}.{theirs}": f"layer{s + 1}.{{b}}.{published}"
            for s in range(4)
            for theirs, published in [
                *((f"layer.{n}.convolution.weight", f"conv{n + 1}.weight") for n in range(3)),
                *((f"layer.{n}.normalization.{{w}}", f"bn{n + 1}.{{w}}") for n in range(3)),
                ("shortcut.convolution.weight", "downsample.0.weight"),
                ("shortcut.normalization.{w}", "downsample.1.{w}"),
            ]
        },
    },
)
RESNET_IN_SEQUENCE = Spelling(  # nn.Sequential(*resnet.children())
    "4.0.conv1.weight",
    {
        **{f"{n + 3}.{{b:[0-9]+}}.{{rest:.+}}": f"layer{n}.{{b}}.{{rest}}" for n in (1, 2, 3, 4)},
        "0.weight": "conv1.weight",
        "1.{w}": "bn1.{w}",
    },
)
SPELLINGS = (
    AS_PUBLISHED,
    CHUNKS,
    TIMM,
    DINOV2_OF_HUGGING_FACE,
    CLIP_OF_HUGGING_FACE,
    RESNET_OF_HUGGING_FACE,
    RESNET_IN_SEQUENCE,
)

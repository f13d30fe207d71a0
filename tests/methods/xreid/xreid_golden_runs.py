"""X-ReID on the golden inputs at full size, beside what the published implementation made."""

import json
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from published import (
    GOLDEN,
    fill,
    off,
    seeded_state,
    seeded_variables,
)
from xreid_golden_step import MANIFEST, MEMORIES, Step, T, facts, tracklets

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods import default, xreid
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.xreid.model import DESCRIPTORS
from dinogrl_jax.methods.xreid.sii import LII, SII
from dinogrl_jax.methods.xreid.weights import CROSS_ATTENTION, LII_BLOCK
from dinogrl_jax.ops import forms
from dinogrl_jax.weights.clip_files import fitted
from dinogrl_jax.weights.conversion import to_variables
from dinogrl_jax.weights.rules import under

FILE = "best_model.pth.tar"
INSIDE = [f"image/{name}" for name in ("norm_before", "block8", "block9", "block11", "norm")]
INSIDE += ["sii/block0", "sii/block1"]


def evaluation(form: str) -> dict[str, float]:
    golden, more = (np.load(GOLDEN / f"xreid_{name}.npz") for name in ("eval", "more"))
    config = default("xreid")
    config.ops.forms, config.model.remat = form, "nothing"
    config.model.prototypes.on = False  # memories, which the file does not have
    model = xreid.Model(config, facts(golden))
    seed = int(golden["seed"])
    assert seed == more["seed"] == more["dense_seed"]
    assert golden["frames_seed"] == more["dense_frames_seed"]
    variables = seeded_variables(xreid, MANIFEST, model, config, seed, np.float32)

    @partial(jax.jit, compiler_options=compiler_options())
    def apply(variables: dict, clips: Clips):
        with forms.configured(config):
            return model.apply(
                variables,
                clips,
                train=False,
                capture_intermediates=lambda module, _: "/".join(module.path) in INSIDE,
                mutable=["intermediates"],
            )

    @partial(jax.jit, compiler_options=compiler_options())
    def running(variables: dict, clips: Clips):
        with forms.configured(config):
            every = jnp.ones(len(clips.frames), bool)
            kept = {"train": False, "valid": every, "method": "tracklet_prototypes"}
            return model.apply(variables, clips, **kept)

    frames = tracklets(golden, "frames_seed")
    output, captured = apply(variables, clips(frames, golden["cameras"]))
    image, sii = (captured["intermediates"][name] for name in ("image", "sii"))
    image, sii = ({k: x["__call__"][0] for k, x in tree.items()} for tree in (image, sii))
    tokens = image["norm"]
    assert tokens.shape == (20, 163, 768)
    projected = model.apply(variables, tokens[:, 0], method=lambda m, x: m.image.projected(x))
    dense, _ = apply(variables, clips(frames, np.full(2, more["dense_camera"])))
    dense = xreid.descriptor(dense, config)[:, 0]
    prototypes = [
        off(
            running(variables, clips(tracklets(more, f"{m}_seed"), np.full(4, -1))),
            more[f"prototype_{name}_running"],
        )
        for m, name in MEMORIES.items()
    ]
    with forms.configured(config):
        cascade = SII(2, 12, "cascade", jnp.dtype("float32"))
        cascade = cascade.apply({"params": variables["params"]["sii"]}, tokens, T)
        lii = LII(12, -1, "cyclic", jnp.dtype("float32"))
        lii = lii.apply(unused_interaction(lii, tokens, seed), tokens, T)
    found = {
        "tokens after ln_pre": (image["norm_before"], "tokens_ln_pre"),
        **{f"tokens of block {i}": (image[f"block{i}"], f"tokens_block{i}") for i in (8, 9, 11)},
        "tokens after ln_post": (tokens, "tokens_ln_post"),
        "interactions, first": (sii["block0"], "sii_first_frames"),
        "interactions": (sii["block1"], "sii_frames"),
        "interactions, cascade": (cascade, "sii_frames_cascade"),
        "interactions that are not called": (lii, "lii_frames"),
        "positions": (positions(config, seed), "positional_embedding_resized"),
    }
    variants = []
    for name in DESCRIPTORS:
        config.evaluation.descriptor = name
        key = "features" if name == "V0" else f"features_{name.lower()}"
        variants.append(off(xreid.descriptor(output, config), golden[key]))
    return {name: off(x, golden[key]) for name, (x, key) in found.items()} | {
        "class token and projection": max(
            off(tokens[:, 0], golden["class_frames"]), off(projected, golden["proj_frames"])
        ),
        "descriptors, all variants": max(variants),
        "dense descriptor": max(
            off(dense, more["dense_clips"]), off(dense.mean(0), more["dense_features"])
        ),
        "prototypes by running statistics": max(prototypes),
    }


def training_float64(form: str) -> dict[str, float]:
    jax.config.update("jax_enable_x64", True)
    return Step("xreid_train_float64.npz", np.float64, form).figures()


def training_float32(form: str) -> dict[str, float]:
    return Step("xreid_train.npz", np.float32, form).figures()


RUNS: dict[str, Callable[[str], dict[str, float]]] = {
    "eval": evaluation,
    "train_float64": training_float64,
    "train_float32": training_float32,
}


def clips(frames: np.ndarray, cameras: np.ndarray, modality: str = "visible") -> Clips:
    return Clips(frames[:, None], cameras[:, None].astype(np.int32), (modality,))


def positions(config: ConfigDict, seed: int) -> np.ndarray:
    """CLIP's positions for the patches of these frames."""
    name = "visual.positional_embedding"
    state = {name: fill.parameter(f"ViT-B-16.pt:{name}", (197, 768), seed)}
    return fitted(state, grid=(18, 9))[name]


def unused_interaction(module: LII, tokens: jax.Array, seed: int) -> dict:
    """The seeded parameters of the module that the published code does not call."""
    rules = under(CROSS_ATTENTION, f"{LII_BLOCK}.Rotation.", "block/")
    entries = json.loads((GOLDEN / MANIFEST).read_text())[FILE]
    entries = [entry for entry in entries if entry[0].startswith(LII_BLOCK)]
    state = dict(seeded_state(FILE, entries, rules, seed))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, T))
    variables, _ = to_variables(state, rules, shapes, source_name=FILE)
    return jax.tree.map(jnp.asarray, variables)

"""VLD on the golden inputs at full size, beside what the published implementation made."""

import ctypes
import gc
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import linen as nn
from published import GOLDEN, fill, off, places, relative, sampled, seeded_variables

from dinogrl_jax.devices import sharding
from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods import default, vld
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.vld.hub import with_exchanged_tokens
from dinogrl_jax.methods.vld.losses import loss_weights
from dinogrl_jax.ops import forms
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step

MANIFEST = "vld_manifest.json"
TERMS = {  # here → in the golden files
    "identity_class": "loss_id",
    "identity_projected": "loss_id_proj",
    "identity_text": "loss_id_text",
    "identity_hub": "loss_id_stp",
    "triplet_before_last": "loss_tri_last",
    "triplet_class": "loss_tri",
    "triplet_projected": "loss_tri_proj",
    "triplet_hub": "loss_tri_stp",
    "total": "loss_total",
}
INSIDE = ("norm_before", *(f"block{i}" for i in range(8, 12)), "aggregation")
FEATURES = {"before_last": "last", "class": "feat", "projected": "proj", "hub": "stp"}
LOGITS = {
    "class": "logits_id",
    "projected": "logits_id_proj",
    "text": "logits_id_text",
    "hub": "logits_id_stp",
}


def evaluation(form: str) -> dict[str, float]:
    golden = np.load(GOLDEN / "vld_eval.npz")
    config = default("vld")
    config.ops.forms, config.model.remat = form, "nothing"
    model = vld.Model(config, Facts(int(golden["num_classes"])))
    seed = int(golden["seed"])
    variables = seeded_variables(vld, MANIFEST, model, config, seed, np.float32)

    def everything(model: vld.Model, clips: Clips) -> tuple:
        output = model(clips, train=False)
        texts = model.texts()
        return output, texts, output.features["projected"] @ texts.T

    def apply(variables: dict, clips: Clips):
        with forms.configured(config):
            return model.apply(
                variables,
                clips,
                method=everything,
                capture_intermediates=lambda module, _: module.name in INSIDE,
                mutable=["intermediates"],
            )

    apply = jax.jit(apply, compiler_options=compiler_options())
    (output, texts, logits), captured = apply(variables, clips(golden, "frames_seed"))
    inside = captured["intermediates"]
    image = {name: calls["__call__"][0] for name, calls in inside["image"].items()}
    for name in ("block9", "block10"):  # the published code exchanges tokens in what was captured
        image[name] = with_exchanged_tokens(image[name], 6)
    gathered = inside["aggregation"]["__call__"][0]
    last = image["block11"]
    tokens = model.apply(variables, last, method=lambda model, x: model.image.final_norm(x))
    found = {
        "tokens after ln_pre": (image["norm_before"], "tokens_ln_pre"),
        **{f"tokens of block {i}": (image[f"block{i}"], f"tokens_block{i}") for i in range(8, 12)},
        **{
            f"hub tokens of block {i}": (image[f"block{i}"][:, -6:], f"hub_block{i}")
            for i in range(9, 12)
        },
        "tokens after ln_post": (tokens, "tokens_ln_post"),
        "aggregation": (gathered, "sta_frames"),
        "class token before the last block": (image["block10"][:, 0], "last_frames"),
        "text features": (texts, "text_features"),
        "text logits": (logits, "text_logits"),
    }
    figures = {name: off(x, golden[key]) for name, (x, key) in found.items()}
    assert image["norm_before"].shape == (12, 163, 768)
    norms = np.linalg.norm(np.asarray(texts, np.float64), axis=1)
    descriptors = vld.descriptor(output, config).reshape(2, -1)
    return figures | {
        "features": max(off(output.features[k], golden[v]) for k, v in FEATURES.items()),
        "text norms": float(np.abs(norms / golden["text_norms"] - 1).max()),
        "descriptors": off(descriptors, golden["features"]),
    }


def training_float64(form: str) -> dict[str, float]:
    jax.config.update("jax_enable_x64", True)
    return Step("vld_train_float64.npz", np.float64, form).figures()


def training_float32(form: str) -> dict[str, float]:
    return Step("vld_train.npz", np.float32, form).figures()


RUNS: dict[str, Callable[[str], dict[str, float]]] = {
    "eval": evaluation,
    "train_float64": training_float64,
    "train_float32": training_float32,
}


class Step:
    """One training step on the golden batch: the jitted step of training itself."""

    def __init__(self, file: str, dtype: type, form: str) -> None:
        self.golden = golden = np.load(GOLDEN / file)
        self.reliable = np.load(GOLDEN / "vld_train.npz")["update_reliable"]
        config = default("vld")
        config.ops.forms = form
        config.model.compute_dtype = np.dtype(dtype).name
        assert config.optimizer.learning_rate == golden["base_learning_rate"]
        assert config.optimizer.weight_decay == golden["weight_decay"]
        for name, published in TERMS.items():
            if name != "total":
                weight = golden[f"weight_{published.removeprefix('loss_')}"]
                assert weight == loss_weights(config.loss).get(name, 1.0)
        self.config = config
        self.model = vld.Model(config, Facts(int(golden["num_classes"])))
        self.places = places(vld, config)
        self.output = {}
        self._run(dtype)

    def _run(self, dtype: type) -> None:
        golden, config, mesh = self.golden, self.config, sharding.device_mesh()
        pair = [clips(golden, f"{m}_seed").frames for m in ("visible", "infrared")]
        frames = np.concatenate(pair, axis=1).astype(dtype)
        labels = golden["labels"].reshape(2, -1)
        assert (labels[0] == labels[1]).all()
        batch = Clips(frames, unknown_cameras(frames)), labels[0].astype(np.int32)
        seed = int(golden["seed"])
        variables = seeded_variables(vld, MANIFEST, self.model, config, seed, dtype)
        state = initial_state(variables, vld, config)
        del variables
        state = state._replace(opt_state=self._in_epoch(state.opt_state, int(golden["epoch"])))
        state = jax.device_put(state, sharding.replicated(mesh))
        step = make_step(vld, self.model, config, mesh)
        with nn.intercept_methods(self._keep_output):
            compiled = step.lower(state, *batch).compile()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the compiler leaves
        self.state, self.terms = compiled(state, *sharding.placed(batch, mesh))
        jax.block_until_ready(self.state)
        jax.effects_barrier()
        self.momentum = optax.tree_utils.tree_get(self.state.opt_state, "mu")

    def _in_epoch(self, opt_state: tuple, epoch: int) -> tuple:
        """As at the first step of an epoch: the learning rates alone, not Adam's own count."""

        def begun(x):
            if isinstance(x, optax.ScaleByScheduleState):
                return x._replace(count=x.count + epoch * self.config.train.steps_per_epoch)
            return x

        def is_count(x) -> bool:
            return isinstance(x, optax.ScaleByScheduleState)

        return jax.tree.map(begun, opt_state, is_leaf=is_count)

    def _keep_output(self, following, args, kwargs, context):
        output = following(*args, **kwargs)
        if isinstance(context.module, vld.Model) and context.method_name == "__call__":
            kept = {**output.features, **{f"logits_{k}": x for k, x in output.logits.items()}}
            jax.debug.callback(self.output.update, kept)
        return output

    def figures(self) -> dict[str, float]:
        golden = self.golden
        trained = {str(name): i for i, name in enumerate(golden["grad_names"])}
        assert len(trained) == len(jax.tree.leaves(self.state.params))
        norms, samples, updates = [], [], []
        for name, i in trained.items():
            place = self.places(name)
            # Adam's first moment is a tenth of the gradient, as the decay is beside it.
            gradient = place.of(self.momentum).astype(np.float64) / (1 - 0.9)
            norms.append(relative(np.linalg.norm(gradient), golden["grad_norms"][i]))
            difference = np.abs(sampled(gradient, 4) - golden["grad_samples"][i])
            samples.append(difference.max() / golden["grad_max"][i])
            difference = sampled(place.of(self.state.params), 4) - golden["update_samples"][i]
            steps = np.abs(difference)[self.reliable[i]] / golden["learning_rates"][i]
            updates.extend(steps)
        assert len(updates) > len(trained)  # more than one number of a parameter can be compared
        after = self.state.collections["batch_stats"]
        statistics = [
            relative(np.linalg.norm(self.places(str(name)).of(after)), norm)
            for name, norm in zip(golden["buffer_names"], golden["buffer_norms"], strict=True)
            if self.places(str(name))
        ]
        assert len(statistics) == 6
        losses = {k: relative(self.terms[k], golden[v]) for k, v in TERMS.items()}
        triplets = max(error for name, error in losses.items() if name.startswith("triplet"))
        return {
            "triplet losses": triplets,
            "other losses": max(e for k, e in losses.items() if k.startswith("identity")),
            "total loss": losses["total"],
            "features": max(
                off(as_published(self.output[k]), golden[v]) for k, v in FEATURES.items()
            ),
            "logits": max(
                off(as_published(self.output[f"logits_{k}"]), golden[v]) for k, v in LOGITS.items()
            ),
            "gradient norms, median": float(np.median(norms)),
            "gradient norms": float(max(norms)),
            "gradient samples": float(max(samples)),
            "running statistics": float(max(statistics)),
            "samples after an AdamW step": float(max(updates)),
        }


def clips(golden: np.lib.npyio.NpzFile, seed: str) -> Clips:
    """Tracklets of six frames of 288×144 pixels, as the network takes them."""
    images = fill.frames(int(golden["frames"]), 288, 144, int(golden[seed]))
    frames = fill.normalised(images).reshape(-1, 1, 6, 288, 144, 3)
    return Clips(frames, unknown_cameras(frames), ("visible",))


def unknown_cameras(frames: np.ndarray) -> np.ndarray:
    return np.full(frames.shape[:2], -1, np.int32)


def as_published(rows: jax.Array) -> np.ndarray:
    """Rows in pairs → the visible tracklets, then the infrared ones."""
    rows = np.asarray(rows)
    return np.concatenate([rows[::2], rows[1::2]])

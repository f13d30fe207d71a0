"""DinoGRL on the golden inputs at full size, beside what the published implementation made."""

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
from dinogrl_jax.methods import default, dinogrl
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.dinogrl.losses import drawn_kept_maps, gait_terms
from dinogrl_jax.models.parts import horizontal_pyramid
from dinogrl_jax.ops import forms
from dinogrl_jax.training.state import initial_state
from dinogrl_jax.training.step import make_step

MANIFEST = "dinogrl_manifest.json"
TERMS = {  # here → in the golden files
    "shape_connect": "term_shape",
    "mask_mse": "term_mse",
    "part_connect": "term_part",
    "part_diversity": "term_div",
    "identity_gait": "loss_id_gait",
    "triplet_gait": "loss_tri_gait",
    "identity_appearance": "loss_id_app",
    "triplet_appearance": "loss_tri_app",
    "total": "loss_total",
}
IN_FRONT_OF_BATCH_NORM = (  # their gradient is zero, what is computed is rounding
    "W1.0.bias",
    "W2.0.bias",
    "Denoising_Branch.down_sampling.0.bias",
    "Appearance_Branch.down_sampling.bias",
)


INSIDE = ("dinov2", "gait", "appearance")  # modules whose results are compared as well


def evaluation(form: str) -> dict[str, float]:
    golden = np.load(GOLDEN / "dinogrl_eval.npz")
    config = default("dinogrl")
    config.ops.forms = form
    model = dinogrl.Model(config, Facts(int(golden["num_classes"])))
    variables = seeded_variables(dinogrl, MANIFEST, model, config, int(golden["seed"]), np.float32)

    def apply(variables: dict, frames: jax.Array, modality: str):
        clips = Clips(frames, np.full(frames.shape[:2], -1, np.int32), (modality,))
        with forms.configured(config):
            return model.apply(
                variables,
                clips,
                train=False,
                capture_intermediates=lambda module, _: module.name in INSIDE,
                mutable=["intermediates"],
            )

    apply = jax.jit(apply, static_argnums=2, compiler_options=compiler_options())
    count = int(golden["frames"])
    output, captured = apply(variables, frames(count, golden["visible_seed"]), "visible")
    inside = {name: calls["__call__"][0] for name, calls in captured["intermediates"].items()}
    infrared, _ = apply(variables, frames(count, golden["infrared_seed"]), "infrared")

    gait = inside["gait"].reshape(2, 6, *inside["gait"].shape[1:]).max(1)
    pyramids = (horizontal_pyramid(x, config.model.parts) for x in (gait, inside["appearance"]))
    compared = {
        "DINOv2's last tokens": (inside["dinov2"].last, "tokens_last"),
        "DINOv2's tapped tokens": (inside["dinov2"].taps, "tokens_mid4"),
        "denoising map": (output.maps.denoising, "denoising"),
        "appearance map": (output.maps.appearance, "appearance_map"),
        "gait pyramid": (next(pyramids).swapaxes(1, 2), "hpp_gait"),
        "appearance pyramid": (next(pyramids).swapaxes(1, 2), "hpp_appearance"),
    }
    figures = {k: off(x, golden[f"visible_{name}"]) for k, (x, name) in compared.items()}
    for modality, made in (("visible", output), ("infrared", infrared)):
        figures[f"{modality} descriptors"] = descriptors_off(made.embedding, golden, f"{modality}_")
    mask, foreground = golden["visible_mask_probability"], golden["visible_foreground"]
    losses = gait_terms(config.loss, output.maps)
    return figures | {
        "mask probability": float(np.abs(output.maps.mask[..., 0] - mask).max()),
        "foreground selection": int(((output.maps.foreground != 0) != (foreground != 0)).sum()),
        "foreground probability": float(np.abs(output.maps.foreground - foreground).max()),
        "gait losses": max(relative(losses[name], golden[f"loss_{name}"]) for name in losses),
    }


def training_float64(form: str) -> dict[str, float]:
    jax.config.update("jax_enable_x64", True)
    golden = np.load(GOLDEN / "dinogrl_train_float64.npz")
    step = Step(golden, np.float64, form)
    norms, samples, zero, updates = [], [], [], []
    for i, name in enumerate(golden["grad_names"]):
        gradient, updated = step.gradient(str(name)), step.updated(str(name))
        largest = np.abs(golden["grad_samples"][i]).max()
        difference = np.abs(sampled(gradient, 4) - golden["grad_samples"][i]).max()
        updates.append(np.abs(sampled(updated, 4) - golden["update_samples"][i]).max())
        if str(name).endswith(IN_FRONT_OF_BATCH_NORM):
            zero += [np.linalg.norm(gradient), difference]
            continue
        norms.append(relative(np.linalg.norm(gradient), golden["grad_norms"][i]))
        samples.append(difference / largest)
    return step.common_figures() | {
        "gradient norms": float(max(norms)),
        "gradient samples": float(max(samples)),
        "gradients that are zero": float(max(zero)),
        "samples after an Adam step": float(max(updates)),
    }


def training_float32(form: str) -> dict[str, float]:
    golden = np.load(GOLDEN / "dinogrl_train.npz")
    step = Step(golden, np.float32, form)
    norms = [
        (relative(np.linalg.norm(step.gradient(str(name))), norm), norm)
        for name, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True)
        if not str(name).endswith(IN_FRONT_OF_BATCH_NORM)
    ]
    return step.common_figures() | {
        "gradient norms, median": float(np.median([error for error, _ in norms])),
        "gradient norms": float(max(error for error, norm in norms if norm > 1e-4)),
    }


RUNS: dict[str, Callable[[str], dict[str, float]]] = {
    "eval": evaluation,
    "train_float64": training_float64,
    "train_float32": training_float32,
}


class Step:
    """One training step on the golden batch: the jitted step of training itself."""

    def __init__(self, golden: np.lib.npyio.NpzFile, dtype: type, form: str) -> None:
        self.golden = golden
        config = default("dinogrl")
        config.ops.forms = form
        config.model.compute_dtype = np.dtype(dtype).name
        config.model.sasgl.mask_dropout = 0.0
        config.optimizer.warmup_epochs = 0
        config.optimizer.learning_rate = float(golden["learning_rate"])
        config.optimizer.weight_decay = float(golden["weight_decay"])
        config.seed = seed_that_zeroes(golden, config.model.sasgl.zeroed_tracklets)
        self.config = config
        self.model = dinogrl.Model(config, Facts(int(golden["num_classes"])))
        self.places = places(dinogrl, config)
        self.embedding = {}
        self._run(dtype)

    def _run(self, dtype: type) -> None:
        golden, config, mesh = self.golden, self.config, sharding.device_mesh()
        count = int(golden["frames"])
        pair = [frames(count, golden[f"{m}_seed"]) for m in ("visible", "infrared")]
        labels = golden["labels"].reshape(2, -1)
        assert (labels[0] == labels[1]).all()
        made = np.concatenate(pair, axis=1).astype(dtype)
        clips = Clips(made, np.full(made.shape[:2], -1, np.int32))
        batch = clips, labels[0].astype(np.int32)
        variables = seeded_variables(
            dinogrl, MANIFEST, self.model, config, int(golden["seed"]), dtype
        )
        state = initial_state(variables, dinogrl, config)
        del variables
        state = jax.device_put(state, sharding.replicated(mesh))
        step = make_step(dinogrl, self.model, config, mesh)
        with nn.intercept_methods(self._keep_embedding):
            compiled = step.lower(state, *batch).compile()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # 1.5 GiB that the compiler leaves
        self.state, self.terms = compiled(state, *sharding.placed(batch, mesh))
        jax.block_until_ready(self.state)
        jax.effects_barrier()
        self.momentum = optax.tree_utils.tree_get(self.state.opt_state, "mu")

    def _keep_embedding(self, following, args, kwargs, context):
        output = following(*args, **kwargs)
        if isinstance(context.module, dinogrl.Model) and context.method_name == "__call__":
            jax.debug.callback(self.embedding.update, output.embedding)
        return output

    def gradient(self, name: str) -> np.ndarray:
        """From Adam's first moment, 0.1·(gradient + weight decay·parameter) after one step."""
        place = self.places(name)
        before = fill.parameter(name, self.updated(name).shape, int(self.golden["seed"]))
        moment = place.of(self.momentum).astype(np.float64)
        decayed = moment / (1 - 0.9) - self.config.optimizer.weight_decay * before
        return decayed

    def updated(self, name: str) -> np.ndarray:
        return self.places(name).of(self.state.params)

    def common_figures(self) -> dict[str, float]:
        golden, after = self.golden, self.state.collections["batch_stats"]
        in_pairs = {name: as_published(x) for name, x in self.embedding.items()}
        statistics = [
            relative(np.linalg.norm(self.places(str(name)).of(after)), norm)
            for name, norm in zip(golden["buffer_names"], golden["buffer_norms"], strict=True)
            if self.places(str(name))
        ]
        return {
            "losses and terms": max(relative(self.terms[k], golden[v]) for k, v in TERMS.items()),
            "descriptors": descriptors_off(in_pairs, golden),
            "running statistics": float(max(statistics)),
        }


def seed_that_zeroes(golden: np.lib.npyio.NpzFile, share: float) -> int:
    """The first seed of a run whose first step itself draws the published zeroed maps.

    The published batch holds the visible tracklets first; here pairs alternate.
    """
    v = len(golden["labels"])
    order = np.arange(v).reshape(2, -1).T.reshape(-1)
    kept = np.ones((v, 2), bool)
    kept[tuple(golden["zeroed_maps"].T)] = False
    for seed in range(10_000):
        key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0))[0]
        if (np.asarray(drawn_kept_maps(key, v, share)) == kept[order]).all():
            return seed
    raise AssertionError("no seed draws the published maps")


def frames(count: int, seed: np.ndarray) -> np.ndarray:
    """Tracklets of six frames [v, 1, 6, 256, 128, 3], as the network takes them."""
    return fill.normalised(fill.frames(count, 256, 128, int(seed))).reshape(-1, 1, 6, 256, 128, 3)


def as_published(embedding: jax.Array) -> np.ndarray:
    """Rows in pairs → the visible tracklets, then the infrared ones."""
    rows = np.asarray(embedding)
    return np.concatenate([rows[::2], rows[1::2]])


def descriptors_off(embedding: dict, golden: np.lib.npyio.NpzFile, prefix: str = "") -> float:
    return max(off(x.swapaxes(1, 2), golden[f"{prefix}{name}"]) for name, x in embedding.items())

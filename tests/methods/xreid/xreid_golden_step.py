"""X-ReID's pass before an epoch and its step on the golden batch, as training makes them."""

import contextlib
import ctypes
import gc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from published import (
    GOLDEN,
    Place,
    fill,
    off,
    places,
    relative,
    sampled,
    seeded_variables,
)

from dinogrl_jax.data.batches import EvaluationBatch
from dinogrl_jax.devices import sharding
from dinogrl_jax.methods import default, xreid
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.methods.xreid.prototypes import hardest
from dinogrl_jax.models.parts import l2_normalised
from dinogrl_jax.training.state import Setup, initial_state
from dinogrl_jax.training.step import make_step
from dinogrl_jax.training.sweep import Sweeper

MANIFEST = "xreid_manifest.json"
TERMS = {  # here → in the golden files
    "identity_clip": "loss_id_clip",
    "identity_interactions": "loss_id_sii",
    "identity_clip_frames": "loss_id_frame_clip",
    "identity_interactions_frames": "loss_id_frame_sii",
    "triplet_class": "loss_tri_clip",
    "triplet_projected": "loss_tri_proj",
    "triplet_interactions": "loss_tri_sii",
    "contrast_visible": "loss_cpc_rgb",
    "contrast_infrared": "loss_cpc_ir",
    "total": "loss_total",
}
FEATURES = {"class": "clip", "projected": "proj", "interactions": "sii"}
LOGITS = {
    "clip": "logits_clip",
    "interactions": "logits_sii",
    "clip_frames": "logits_frame_clip",
    "interactions_frames": "logits_frame_sii",
}
MEMORIES = {"visible": "rgb", "infrared": "ir"}
T = 10  # frames of a tracklet


class Step:
    """The pass before an epoch and one step on the golden batch, as training itself makes them."""

    def __init__(self, file: str, dtype: type, form: str) -> None:
        self.golden, reliable = np.load(GOLDEN / file), np.load(GOLDEN / "xreid_train.npz")
        self.reliable, self.updates_reliable = (
            reliable["grad_reliable"],
            reliable["update_reliable"],
        )
        golden, config = self.golden, default("xreid")
        config.ops.forms = form
        config.model.compute_dtype = np.dtype(dtype).name
        assert config.optimizer.learning_rate == golden["base_learning_rate"]
        assert config.optimizer.weight_decay == golden["weight_decay"]
        self.config, self.dtype = config, dtype
        self.model = xreid.Model(config, facts(golden))
        self.places = places(xreid, config)
        self.output = {}
        self._run()

    def _run(self) -> None:
        golden, config, mesh = self.golden, self.config, sharding.device_mesh()
        frames = {m: tracklets(golden, f"{m}_seed").astype(self.dtype) for m in MEMORIES}
        infrared, visible = golden["labels"].reshape(2, -1).astype(np.int32)
        assert (infrared == visible).all()
        cameras = golden["cameras"].reshape(2, -1)[::-1].T.astype(np.int32)
        batch = Clips(np.stack([frames[m] for m in MEMORIES], axis=1), cameras), visible
        seed, epoch = int(golden["seed"]), int(golden["epoch"]) - 1
        variables = seeded_variables(xreid, MANIFEST, self.model, config, seed, self.dtype)
        shapes = variable_shapes(self.model, config)["memory"]
        variables["memory"] = {m: jnp.zeros(x.shape, self.dtype) for m, x in shapes.items()}
        state = initial_state(variables, xreid, config)
        del variables
        state = state._replace(opt_state=self._in_epoch(state.opt_state, epoch))
        state = jax.device_put(state, sharding.replicated(mesh))
        setup = Setup(xreid, self.model, config, mesh)
        swept = partial(golden_sweep, frames, visible)
        with nn.intercept_methods(self._keep_output):
            state = Sweeper(setup, swept)(state, epoch)
        jax.effects_barrier()
        self.swept = jax.device_get(state.collections)
        memories = self._memories(state.collections["memory"], seed)
        memories = jax.device_put(memories, sharding.replicated(mesh))
        state = state._replace(collections={**state.collections, "memory": memories})
        self.before = jax.device_get(state.collections["memory"])
        release_memory()
        step = make_step(*setup)
        with nn.intercept_methods(self._keep_output):
            compiled = step.lower(state, *batch).compile()
        release_memory()
        self.state, self.terms = compiled(state, *sharding.placed(batch, mesh))
        jax.block_until_ready(self.state)
        jax.effects_barrier()
        self.momentum = optax.tree_utils.tree_get(self.state.opt_state, "mu")

    def _memories(self, swept: dict, seed: int) -> dict:
        """Seeded rows, but those of the identities that were swept."""
        rows = self.golden["prototype_identities"]
        found = {}
        for modality, name in MEMORIES.items():
            other = fill.parameter(f"memory_{name}", swept[modality].shape, seed)
            other = l2_normalised(jnp.asarray(other, self.dtype), axis=1)
            found[modality] = other.at[rows].set(swept[modality][rows])
        return found

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
        if isinstance(context.module, xreid.Model):
            if context.method_name == "__call__":
                kept = {**output.features, **{f"logits_{k}": x for k, x in output.logits.items()}}
                kept["bn_feature"] = jnp.concatenate(
                    [output.normed["class"], output.normed["projected"]], axis=1
                )
                jax.debug.callback(self.output.update, kept)
            elif context.method_name == "tracklet_prototypes":
                (modality,) = args[0].modalities
                jax.debug.callback(self.output.update, {f"prototype_{modality}": output})
        return output

    def figures(self) -> dict[str, float]:
        golden = self.golden
        losses = {k: relative(self.terms[k], golden[v]) for k, v in TERMS.items()}
        triplets = max(error for name, error in losses.items() if name.startswith("triplet"))
        others = ("identity", "contrast")
        logits = [
            off(as_published(self.output[f"logits_{k}"]), golden[v]) for k, v in LOGITS.items()
        ]
        features = [off(as_published(self.output[k]), golden[v]) for k, v in FEATURES.items()]
        statistics = {
            "statistics after the prototypes": (self.swept, "buffer_norms_prototypes"),
            "running statistics": (self.state.collections, "buffer_norms"),
        }
        return {
            "prototypes": max(self._prototypes()),
            **{name: self._statistics(*given) for name, given in statistics.items()},
            "triplet losses": triplets,
            "other losses": max(e for k, e in losses.items() if k.startswith(others)),
            "total loss": losses["total"],
            "features": max(features),
            "logits": max(
                *logits, off(as_published(self.output["bn_feature"]), golden["bn_feature"])
            ),
            "hardest tracklets that differ": self._other_hardest(),
            "memories after the step": max(self._memories_after()),
            **self._updates(),
        }

    def _prototypes(self) -> list[float]:
        golden, rows = self.golden, self.golden["prototype_identities"]
        return [
            error
            for modality, name in MEMORIES.items()
            for error in (
                off(self.output[f"prototype_{modality}"], golden[f"prototype_{name}"]),
                off(self.before[modality][rows], golden[f"memory_{name}_before"]),
            )
        ]

    def _statistics(self, collections: dict, norms: str) -> float:
        golden, found = self.golden, []
        for name, norm in zip(golden["buffer_names"], golden[norms], strict=True):
            if place := self.places(str(name)):
                value = np.linalg.norm(place.of(collections["batch_stats"]))
                found.append(relative(value, norm))
        assert len(found) == 12
        return float(max(found))

    def _other_hardest(self) -> float:
        """How many of the hardest tracklets of two identities and memories are other ones."""
        golden, x = self.golden, as_published(self.output["bn_feature"])
        x, labels = l2_normalised(jnp.asarray(x), axis=1), jnp.asarray(golden["labels"])
        count = 0
        for modality, expected in zip(MEMORIES, golden["hardest_clip"], strict=True):
            given = x, labels, jnp.asarray(self.before[modality]), jnp.ones(len(x), bool)
            chosen = np.flatnonzero(np.asarray(hardest(*given)))
            order = [
                int(np.flatnonzero(labels[chosen] == i)[0]) for i in golden["prototype_identities"]
            ]
            count += int((chosen[order] != expected).sum())
        return float(count)

    def _memories_after(self) -> list[float]:
        golden, rows = self.golden, self.golden["prototype_identities"]
        found = []
        for modality, name in MEMORIES.items():
            after = np.asarray(self.state.collections["memory"][modality])
            found.append(off(after[rows], golden[f"memory_{name}_after"]))
            found.append(off(after, golden[f"memory_{name}_after_samples"]))
        return found

    def _updates(self) -> dict[str, float]:
        golden = self.golden
        trained = {str(name): i for i, name in enumerate(golden["grad_names"])}
        assert len(trained) == len(jax.tree.leaves(self.state.params))
        norms, samples, updates = [], [], []
        for name, i in trained.items():
            place = self.places(name)
            gradient = self._gradient(name, place)
            if self.reliable[i]:
                norms.append(relative(np.linalg.norm(gradient), golden["grad_norms"][i]))
                difference = np.abs(sampled(gradient, 4) - golden["grad_samples"][i])
                samples.append(difference.max() / golden["grad_max"][i])
            difference = sampled(place.of(self.state.params), 4) - golden["update_samples"][i]
            steps = np.abs(difference)[self.updates_reliable[i]] / golden["learning_rates"][i]
            updates.extend(steps)
        assert len(updates) > len(trained)  # more than one number of a parameter can be compared
        return {
            "gradient norms, median": float(np.median(norms)),
            "gradient norms": float(max(norms)),
            "gradient samples": float(max(samples)),
            "samples after an Adam step": float(max(updates)),
        }

    def _gradient(self, name: str, place: Place) -> np.ndarray:
        """Adam's first moment is a tenth of the gradient, in which the decay is."""
        moment = place.of(self.momentum).astype(np.float64)
        start = fill.parameter(name, moment.shape, int(self.golden["seed"]))
        return moment / (1 - 0.9) - float(self.golden["weight_decay"]) * start.astype(np.float64)


def facts(golden: np.lib.npyio.NpzFile) -> Facts:
    """The golden cameras count from 0."""
    return Facts(int(golden["num_classes"]), tuple(range(int(golden["num_cameras"]))))


def tracklets(golden: np.lib.npyio.NpzFile, seed: str) -> np.ndarray:
    """Tracklets of ten frames of 288×144 pixels, as the network takes them."""
    images = fill.frames(int(golden["frames"]), 288, 144, int(golden[seed]))
    return fill.normalised(images).reshape(-1, T, 288, 144, 3)


@contextlib.contextmanager
def golden_sweep(frames: dict[str, np.ndarray], labels: np.ndarray, size: int, epoch: int):
    """The four tracklets of either modality, in a batch each, without cameras."""
    del size, epoch
    unknown, every = np.full(len(labels), -1, np.int32), np.ones(len(labels), bool)
    yield [
        EvaluationBatch(x[:, None], unknown, labels, unknown, every, modality)
        for modality, x in frames.items()
    ]


def release_memory() -> None:
    """Give back what compilers leave."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def as_published(rows: jax.Array) -> np.ndarray:
    """Rows of tracklets in pairs, or of their frames → the infrared ones, then the visible ones."""
    rows = np.asarray(rows)
    pairs = rows.reshape(4, 2, -1, rows.shape[-1])
    return pairs[:, ::-1].swapaxes(0, 1).reshape(rows.shape)

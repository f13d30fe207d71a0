"""A trained model that embeds clips, for programs."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import compiling, sharding
from dinogrl_jax.retrieval import embedding
from dinogrl_jax.retrieval.store.source import Source, judged_thresholds
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.api.clips import Clip, tracklets_of_clips
from dinogrl_jax.training.stored import stored_model

# Of the data settings, those that change what a model sees of a tracklet, where they are not empty.
SEEN = ("deep_range", "exif_rotation", "frames", "height", "test_frames", "width")
NOT_SEEN = ("remat",)  # of the model's, what changes no value


class Model(NamedTuple):
    """A trained model; `load` makes one.

    Attributes:
        config: its settings, with the batch that it embeds at once.
        step: of the training.
        source: what a gallery keeps of it: its fingerprint, distance and thresholds.
        variables: its parameters and all other collections, on the devices.
    """

    config: ConfigDict
    step: int
    source: Source
    variables: Mapping[str, Any]
    embed_batch: Callable  # what embedding.make_embed returns
    mesh: jax.sharding.Mesh

    def __repr__(self) -> str:  # without all its parameters
        return f"Model({self.source.title})"

    def embed(
        self,
        clips: Sequence[Clip],
        modality: str | Sequence[str] = "visible",
        *,
        cameras: Sequence[int] | None = None,
    ) -> Float[np.ndarray, "n p d"]:
        """The descriptors of n clips, float32: any number, in batches of one compiled shape.

        Frames are chosen and preprocessed as in an evaluation. The result is that of
        scripts/extract.py to the bit where its batch has the same size (`load`'s `batch`).

        Args:
            clips: each a sequence of frames in order of time, a folder of them, or the path of one.
                A frame is an array of uint8 [height, width, 3] (RGB) or [height, width] (grey), a
                Pillow picture, or a path. An array [t, height, width, 3] is a clip, too.
            modality: "visible" or "infrared", of all clips or of each.
            cameras: of each clip, as in training; only methods with a table of cameras use them.

        Raises:
            InputError: for no clip, a clip without frames, what is no frame or cannot be read, an
                unknown modality, and descriptors that are not finite.
        """
        return self.embed_tracklets(tracklets_of_clips(clips, modality, cameras))

    def embed_tracklets(
        self, tracklets: Sequence[Tracklet], workers: int = 0
    ) -> Float[np.ndarray, "n p d"]:
        """The descriptors of n tracklets, whose frames `workers` processes read; 0 for none."""
        config = self.config.copy_and_resolve_references()
        config.data.workers = workers
        return embedding.embeddings(self.embed_batch, self.variables, tracklets, config, self.mesh)


def load(place: str | os.PathLike, which: str = "best", *, batch: int | None = None) -> Model:
    """The model of a run, of scripts/convert.py, or of the folder of a step of either.

    Programs that it compiles are kept for the next process, as those of the scripts.

    Args:
        place: the folder.
        which: of a run's checkpoints: "best", "last" or a step's number.
        batch: clips that are embedded at once, fewer being filled up to it; default as in an
            evaluation (`evaluation.tracklets_per_batch`). 1 is right where clips come one by one.

    Raises:
        InputError: where no whole model lies there, or `batch` is below 1.
    """
    manager, trained, folder = stored_model(place, which)
    with contextlib.closing(manager):
        method = methods.named(trained.config.method)
        content = checkpoint.content_of(manager, trained.step)
        variables = checkpoint.stored_variables(method, manager, trained.step)
    if jax.config.jax_compilation_cache_dir is None:
        compiling.keep_compiled()
    mesh = sharding.device_mesh()
    size = trained.config.evaluation.tracklets_per_batch if batch is None else batch
    config = embedding.extraction_config(trained.config, size, mesh.size, size, 0)
    variables = jax.device_put(variables, sharding.replicated(mesh))
    embed = embedding.make_embed(method, method.Model(config, trained.facts), config, mesh)
    source = source_of(trained.config, content, trained.step, folder)
    return Model(config, trained.step, source, variables, embed, mesh)


def source_of(config: ConfigDict, content: Mapping[str, Any], step: int, folder: Path) -> Source:
    """What a gallery keeps of a model; content: of its checkpoint's step."""
    source = named_source(config, content, step)
    thresholds = judged_thresholds(folder / "evaluation.json", step, source.distance)
    return source._replace(thresholds=thresholds)


def named_source(config: ConfigDict, content: Mapping[str, Any], step: int) -> Source:
    """The same without the thresholds of an evaluation.

    Models have one fingerprint where weights, architecture and the choice of frames are the same.
    """
    model = {key: x for key, x in config.model.to_dict().items() if key not in NOT_SEEN}
    seen = {
        "method": config.method,
        "model": model,
        "data": {key: config.data[key] for key in SEEN if config.data.get(key)},
        "variables": content["fingerprints"]["variables"],
    }
    fingerprint = checkpoint.digest(seen)
    return Source(fingerprint, f"{config.method}, step {step}", config.evaluation.distance)

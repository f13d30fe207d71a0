"""A folder with a model's program and its parameters.

visible.stablehlo, infrared.stablehlo    (parameters, frames, camera) → descriptors
parameters.npz                           in the order of the program's: 0, 1, …
about.json                               sizes, how descriptors are compared, versions
load.py                                  a loader that needs JAX alone
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.ops import forms
from dinogrl_jax.ops.precision import exact_products
from dinogrl_jax.retrieval.export.preprocessing import normalised_frames

PLATFORMS = ("cpu", "cuda", "tpu")
LOADER = '''"""load(FOLDER, MODALITY): (uint8 frames [b, t, h, w, 3], cameras [b]) → descriptors."""

import jax
import numpy as np
from jax import export


def load(folder, modality):
    with open(f"{folder}/{modality}.stablehlo", "rb") as file:
        program = jax.jit(export.deserialize(bytearray(file.read())).call)
    with np.load(f"{folder}/parameters.npz") as arrays:
        parameters = jax.device_put([arrays[str(i)] for i in range(len(arrays.files))])
    return lambda frames, cameras: program(parameters, frames, cameras)
'''


def tracklet_function(
    method: ModuleType, model: nn.Module, config: ConfigDict, modality: str
) -> Callable:
    """(variables, frames, camera) → a descriptor, with the definitions of all operations."""

    def descriptor(
        variables: Mapping, frames: UInt8[Array, "t h w 3"], camera: Int[Array, ""]
    ) -> Float[Array, "p d"]:
        with forms.using("plain", "cpu"), exact_products(config.model.compute_dtype):
            x = normalised_frames(frames, config.data.height, config.data.width)
            clips = Clips(x[None, None], camera[None, None], (modality,))
            made = method.descriptor(model.apply(variables, clips, train=False), config)
        return made[0].astype(jnp.float32)

    return descriptor


def descriptor_function(*of_model: Any) -> Callable:
    """(variables, frames, cameras) → descriptors of tracklets; arguments as above."""
    # Models are written for a number of tracklets; with vmap the number may be a symbol.
    return jax.vmap(tracklet_function(*of_model), in_axes=(None, 0, 0))


def exported_program(function: Callable, variables: Mapping, frames: int) -> export.Exported:
    """The function as a program of the variables' leaves, for any batch and size of pictures.

    frames: of a clip.
    """
    leaves, tree = jax.tree.flatten(variables)

    def program(leaves: Sequence, frames: Array, cameras: Array) -> Array:
        return function(jax.tree.unflatten(tree, leaves), frames, cameras)

    b, h, w = export.symbolic_shape("b, h, w")
    shapes = (
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves],
        jax.ShapeDtypeStruct((b, frames, h, w, 3), np.uint8),
        jax.ShapeDtypeStruct((b,), np.int32),
    )
    return export.export(jax.jit(program), platforms=PLATFORMS)(*shapes)


def write_program(
    folder: Path,
    method: ModuleType,
    model: nn.Module,
    variables: Mapping,
    config: ConfigDict,
    about: Mapping[str, Any],
) -> None:
    """Write a model's programs of both modalities and what belongs to them into a folder."""
    for modality in MODALITIES:
        function = descriptor_function(method, model, config, modality)
        made = exported_program(function, variables, config.data.frames)
        (folder / f"{modality}.stablehlo").write_bytes(made.serialize())
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(variables))}
    np.savez(folder / "parameters.npz", **leaves)
    about = {**about, "platforms": PLATFORMS}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    (folder / "load.py").write_text(LOADER)

"""A folder with a model as ONNX, for who has no more than onnxruntime.

visible.onnx, infrared.onnx    frames, cameras → descriptors
parameters.bin                 the parameters of both: "external data", as ONNX says
about.json                     sizes, how descriptors are compared, versions
load.py                        a loader that needs onnxruntime alone

jax2onnx converts. While it traces, it replaces functions of JAX by its own, which do not take all
arguments; so it gets what JAX has traced before.
"""

import functools
import hashlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export, lax
from jax.extend import core
from jax.typing import ArrayLike
from jaxtyping import Array
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.export.program import tracklet_function

NEEDED = ("onnx", "onnxruntime", "jax2onnx")
INSTALL = (
    "pip install 'dinogrl_jax[onnx]', then pip install --no-deps jax2onnx==0.17.1 (docs/export.md)"
)
PARAMETERS = "parameters.bin"
SMALLEST = 1024  # bytes of an array that lies there
ALIGNED = 4096  # where arrays begin, so that they can be mapped
LOADER = '''"""load(FOLDER, MODALITY): (uint8 frames [b, t, h, w, 3], cameras [b]) → descriptors."""

import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(3)  # errors: not constants that nothing uses


def load(folder, modality, providers=("CPUExecutionProvider",)):
    session = onnxruntime.InferenceSession(f"{folder}/{modality}.onnx", providers=list(providers))

    def model(frames, cameras):
        arrays = {"frames": np.asarray(frames, np.uint8), "cameras": np.asarray(cameras, np.int32)}
        return session.run(None, arrays)[0]

    return model
'''


def needed_packages() -> list[ModuleType]:
    """The packages in NEEDED; InputError where one is not installed."""
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)  # it names packages that it does without
    try:
        return [importlib.import_module(name) for name in NEEDED]
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}: {INSTALL}") from error


def write_model(
    folder: Path,
    method: ModuleType,
    model: nn.Module,
    variables: Mapping,
    config: ConfigDict,
    about: Mapping[str, Any],
) -> None:
    """Write a model of each modality and what belongs to them into a folder.

    Raises InputError where a package is not installed.
    """
    needed = needed_packages()
    variables = jax.tree.map(jnp.asarray, variables)
    with open(folder / PARAMETERS, "wb") as file:
        places: dict[bytes, int] = {}
        for modality in MODALITIES:
            function = tracklet_function(method, model, config, modality)
            made = onnx_model(partial(function, variables), config.data.frames)
            move_parameters(made, file, places)
            (folder / f"{modality}.onnx").write_bytes(made.SerializeToString())
    versions = {package.__name__: version(package.__name__) for package in needed}
    about = {**about, "versions": {**about["versions"], **versions}}
    about["opset"] = made.opset_import[0].version
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    (folder / "load.py").write_text(LOADER)


def onnx_model(function: Callable, frames: int) -> Any:
    """A model of frames [b, frames, h, w, 3] and cameras [b], with any b, h and w.

    function: (frames [t, h, w, 3], camera) → a descriptor. It is computed for one tracklet after
    the other: jax2onnx loses a symbol for their number in some operations.
    """
    _, _, jax2onnx = needed_packages()
    b, h, w = export.symbolic_shape("b, h, w")
    one = [((frames, h, w, 3), np.uint8), ((), np.int32)]
    with warnings.catch_warnings(action="ignore"):  # jax2onnx asks JAX for float64 in vain
        closed = jax.make_jaxpr(function)(*[jax.ShapeDtypeStruct(*x) for x in one])

        def descriptors(frames: Array, cameras: Array) -> Array:
            def descriptor(clip: tuple[Array, Array]) -> Array:
                return evaluated(closed.jaxpr, closed.consts, *clip)[0]

            return lax.map(descriptor, (frames, cameras))

        made = jax2onnx.to_onnx(
            descriptors,
            [jax.ShapeDtypeStruct((b, *shape), dtype) for shape, dtype in one],
            model_name="descriptors",
            input_names=("frames", "cameras"),
            output_names=("descriptors",),
        )
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "b"
    return made


def move_parameters(model: Any, file: BinaryIO, places: dict[bytes, int]) -> None:
    """Move a model's large arrays to the end of a file, each once.

    places: where an array begins, by its SHA-256.
    """
    helper = importlib.import_module("onnx.external_data_helper")
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            content = tensor.raw_data
            if len(content) < SMALLEST:
                continue
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                places[digest] = file.seek(-(-file.tell() // ALIGNED) * ALIGNED)
                file.write(content)
            helper.set_external_data(tensor, PARAMETERS, places[digest], len(content))
            tensor.ClearField("raw_data")


def graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def evaluated(jaxpr: core.Jaxpr, constants: Sequence, *arguments: ArrayLike) -> list[ArrayLike]:
    """The values of a traced function, with other operations for windows.

    jax2onnx makes windows over all axes, onnxruntime takes three.
    """
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def value(variable: Any) -> ArrayLike:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [value(variable) for variable in equation.invars]
        if equation.primitive.name == "reduce_window_max":
            made = [window_maxima(*inputs, **equation.params)]
        elif isinstance(inner := equation.params.get("jaxpr"), core.Jaxpr):  # remat's
            made = evaluated(inner, (), *inputs)
        else:
            primitive = equation.primitive
            made = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
            made = made if primitive.multiple_results else [made]
        values |= zip(equation.outvars, made, strict=True)
    return [value(variable) for variable in jaxpr.outvars]


def window_maxima(
    x: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **_: Any,
) -> Array:
    """As `lax.reduce_window` of `lax.max`, axis by axis.

    Each window reaches into the array, so that its edge may stand for what is padded.
    """
    sides = zip(window_dimensions, window_strides, padding, strict=True)
    for axis, (size, stride, (low, high)) in enumerate(sides):
        if max(size, stride) > 1:
            length = x.shape[axis]
            first = lax.slice_in_dim(x, 0, 1, axis=axis)
            last = lax.slice_in_dim(x, length - 1, length, axis=axis)
            x = lax.concatenate([first] * low + [x] + [last] * high, axis)
            reach = (length + low + high - size) // stride * stride + 1
            shifted = [lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(size)]
            x = functools.reduce(jnp.maximum, shifted)
    return x

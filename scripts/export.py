"""Export a model as programs that need JAX alone, or onnxruntime alone:

    dinogrl_jax export --checkpoint DIR --out FOLDER [--format onnx]

DIR is a run, a converted model, or the folder of a step of either. FOLDER gets a program for each
modality, which takes RGB pictures in 8 bits, of any size and as many tracklets as there are, and
gives descriptors; the parameters beside it; about.json; and load.py, which loads it. The command
compares what it wrote with the model itself and prints the largest difference.
"""

import argparse
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax import methods
from dinogrl_jax.data.tracklets import MODALITIES, UNKNOWN
from dinogrl_jax.data.transforms import OFFSET, SCALE
from dinogrl_jax.devices import compiling, memory, sharding
from dinogrl_jax.interface.arguments import Parser, path
from dinogrl_jax.interface.command_line import WHICH
from dinogrl_jax.interface.errors import run
from dinogrl_jax.interface.files import new_folder
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.retrieval import embedding
from dinogrl_jax.retrieval.export.onnx_model import needed_packages, write_model
from dinogrl_jax.retrieval.export.program import write_program
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.stored import stored_model, weights_digest

FORMATS = {"stablehlo": write_program, "onnx": write_model}


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path, help="run, converted model, or step of one")
    add("--out", required=True, type=path, help="folder to make")
    add("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    add("--format", choices=FORMATS, default="stablehlo", help="default stablehlo, which JAX reads")
    return parser.parse_args()


def main() -> None:
    options = flags()
    if options.format == "onnx":
        needed_packages()
    memory.keep_freed()
    manager, trained, _ = stored_model(options.checkpoint, options.which)
    compiling.keep_compiled()
    config = trained.config
    method, mesh = methods.named(config.method), sharding.device_mesh()
    model = method.Model(config, trained.facts)
    variables = checkpoint.stored_variables(method, manager, trained.step)
    about = {
        "method": config.method,
        "step": trained.step,
        "model": weights_digest(manager, trained.step),
        "frames": config.data.frames,
        "test_frames": config.data.test_frames,
        "distance": config.evaluation.distance,
        "cameras": list(trained.facts.cameras),
        "versions": checkpoint.versions(),
    }
    data = config.data
    sizes = (data.height, data.width), (data.height * 3 // 2, data.width * 5 // 4)
    with new_folder(options.out) as folder:
        FORMATS[options.format](folder, method, model, variables, config, about)
        camera = next(iter(trained.facts.cameras), UNKNOWN)
        embed = embedding.make_embed(method, model, config, mesh)
        variables = jax.device_put(variables, sharding.replicated(mesh))
        differences = {
            modality: [
                difference(folder, modality, partial(embed, variables), config, size, camera)
                for size in sizes
            ]
            for modality in MODALITIES
        }
    for modality, (same, resized) in differences.items():
        print(
            f"{modality}: differs from the model by at most {same:.1e} of a descriptor's length, "
            f"by {resized:.1e} where random pictures are resized"
        )
    print(
        f"{options.out}: {config.method}, step {trained.step}, {config.data.frames} frames a clip"
    )


def difference(
    folder: Path,
    modality: str,
    embed: Callable[[Clips], jax.Array],
    config: ConfigDict,
    size: tuple[int, int],
    camera: int,
) -> float:
    """The largest difference of a descriptor from the model's own, as a share of its length.

    Of random pictures of a height and width, which Pillow resizes for the model.
    """
    data, rng, count = config.data, np.random.default_rng(0), jax.device_count()
    pixels = rng.integers(0, 256, (count, data.frames, *size, 3)).astype(np.uint8)
    cameras = np.full(count, camera, np.int32)
    made = runpy.run_path(str(folder / "load.py"))["load"](folder, modality)(pixels, cameras)
    shape, bilinear = (data.width, data.height), Image.Resampling.BILINEAR
    resized = [Image.fromarray(x).resize(shape, bilinear) for clip in pixels for x in clip]
    frames = np.stack([np.asarray(x) * SCALE + OFFSET for x in resized]).astype(np.float32)
    frames = frames.reshape(count, 1, data.frames, *frames.shape[1:])
    own = np.asarray(embed(Clips(frames, cameras[:, None], (modality,))))
    errors = np.linalg.norm((np.asarray(made) - own).reshape(count, -1), axis=1)
    return float((errors / np.linalg.norm(own.reshape(count, -1), axis=1)).max())


if __name__ == "__main__":
    run(main)

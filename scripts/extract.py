"""Descriptors of anybody's tracklets:

    dinogrl_jax extract --checkpoint DIR --tracklets MANIFEST_OR_FOLDER --out features.npz

DIR is a run, a model that dinogrl_jax convert made, or the folder of a step of either.
A manifest has a line of JSON for each tracklet: {"frames": [paths relative to the manifest],
"identity": …, "camera": …, "modality": "visible" | "infrared"}, identity and camera optional. A
folder has a sub-folder for each tracklet. The arrays of the file: embedding [n, parts, channels]
float32, identity, camera, modality, role, path; -1 is unknown. Frames are sampled as at test time.
The text `distance` says how descriptors are compared. With --halves there are embedding_first and
embedding_second too, of half the frames each. --set changes a setting that an evaluation may
change: --set data.test_frames=dense takes all frames.
"""

import argparse

import jax
import numpy as np
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.config import FREE_AT_EVALUATION, differences
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.devices import compiling, memory, sharding
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import WHICH, changed_config
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.methods.contract import check_tracklets
from dinogrl_jax.retrieval import embedding, feature_file
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.stored import stored_model


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path, help="run, converted model, or step of one")
    add("--tracklets", required=True, type=path, help="a manifest, or a folder of folders")
    add("--out", required=True, type=path, help="the .npz to write")
    add("--modality", choices=MODALITIES, help="where a manifest does not say it")
    add("--batch", type=whole_number(1), help="tracklets at a time; default as in evaluation")
    add("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    add("--workers", type=whole_number(0), help="processes that read frames; 0 for none")
    add("--halves", action="store_true", help="for temporal re-ranking")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable")
    return parser.parse_args()


def main() -> None:
    options = flags()
    memory.keep_freed()
    feature_file.check_writable(options.out)
    listed = manifest.read_tracklets(options.tracklets, options.modality)
    manager, trained, _ = stored_model(options.checkpoint, options.which)
    compiling.keep_compiled()
    mesh = sharding.device_mesh()
    method = methods.named(trained.config.method)
    config = embedding.extraction_config(
        with_settings(trained.config, options.set),
        len(listed),
        mesh.size,
        options.batch,
        options.workers,
    )
    tracklets = [tracklet for tracklet, _ in listed]
    check_tracklets(method, tracklets, trained.facts, config)
    variables = checkpoint.stored_variables(method, manager, trained.step)
    variables = jax.device_put(variables, sharding.replicated(mesh))
    embed = embedding.make_embed(method, method.Model(config, trained.facts), config, mesh)
    sets = {"embedding": tracklets}
    if options.halves:
        sets |= zip(feature_file.HALVES, embedding.halved_tracklets(tracklets), strict=True)
    made = {
        name: embedding.embeddings(embed, variables, some, config, mesh)
        for name, some in sets.items()
    }
    columns = feature_file.tracklet_columns(listed)
    distance = np.array(config.evaluation.distance)
    feature_file.write_features(options.out, **made, **columns, distance=distance)
    shape = made["embedding"].shape[1:]
    print(f"{options.out}: {len(listed)} tracklets, descriptors {shape}, step {trained.step}")


def with_settings(config: ConfigDict, given: list[str]) -> ConfigDict:
    """A trained model's configuration with settings like "evaluation.tracklets_per_batch=8".

    Raises InputError for what is no setting, and for one that would make the model another one.
    """
    changes = {name: value for name, _, value in (one.partition("=") for one in given)}
    changed = checked_config(changed_config(config, changes)) if changes else config
    if other := differences(config, changed, FREE_AT_EVALUATION):
        raise InputError(f"--set {given[0]}: the model was trained otherwise: {'; '.join(other)}")
    return changed


if __name__ == "__main__":
    run(main)

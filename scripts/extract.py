"""Descriptors of anybody's tracklets:

    dinogrl_jax extract --checkpoint DIR --tracklets MANIFEST_OR_FOLDER --out features.npz

DIR is a run, a model that dinogrl_jax convert made, or the folder of a step of either.
A manifest has a line of JSON for each tracklet: {"frames": [paths relative to the manifest],
"identity": …, "camera": …, "modality": "visible" | "infrared"}, identity and camera optional. A
folder has a sub-folder for each tracklet. The arrays of the file: embedding [n, parts, channels]
float32, identity, camera, modality, role, path; -1 is unknown. Frames are sampled as at test time.
The text `distance` says how descriptors are compared, `model` is a
fingerprint of what made them, and `title` its name. With --halves there are embedding_first and
embedding_second too, of half the frames each. --set changes a setting that an evaluation may
change: --set data.test_frames=dense takes all frames. The same command goes on where it was
stopped. What --bad-frames leaves out is listed beside the file. Several processes on one or many
machines make a part each, where srun or mpirun starts them, or --process says which part; the last
one writes the file, and what one that died has not made, the same command makes later.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.config import FREE_AT_EVALUATION, differences
from dinogrl_jax.data.problems import enumeration
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.readers.manifest import ListedTracklet
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.devices import compiling, hosts, memory, sharding
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import WHICH, changed_config
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.methods.contract import check_tracklets
from dinogrl_jax.retrieval import embedding, feature_file
from dinogrl_jax.retrieval.extraction.extracted import (
    BAD_FRAMES,
    DTYPES,
    LeftOut,
    as_dtype,
    extract_share,
    extracted,
    tracklets_digest,
    write_left_out,
)
from dinogrl_jax.retrieval.extraction.unfinished import Share, Unfinished
from dinogrl_jax.retrieval.store.source import Source
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.api.model import named_source
from dinogrl_jax.training.stored import StoredModel, stored_model, weights_digest


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path, help="run, converted model, or step of one")
    add("--tracklets", required=True, type=path, help="a manifest, or a folder of folders")
    add("--out", required=True, type=path, help="the .npz to write")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--modality", choices=MODALITIES, help="where a manifest does not say it")
    add("--batch", type=whole_number(1), help="tracklets at a time; default as in evaluation")
    add("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    add("--workers", type=whole_number(0), help="processes that read frames; 0 for none")
    add("--halves", action="store_true", help="for temporal re-ranking")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable")
    bad = "at one that cannot be read: stop, skip its tracklet, or a neighbour stands in"
    add("--bad-frames", choices=BAD_FRAMES, default="stop", help=f"{bad}; default stop")
    add("--dtype", choices=DTYPES, default="float32", help="of descriptors; default float32")
    which = "this process makes part I of N, beside others with the same --out"
    add("--process", type=share, metavar="I/N", help=f"{which}; default as srun and mpirun say")
    return parser.parse_args()


def share(text: str) -> Share:
    """The type of --process: 2/4 is the second of four."""
    index, slash, count = text.partition("/")
    if not slash or not whole_number(1)(index) <= whole_number(1)(count):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not like 2/4")
    return Share(int(index) - 1, int(count))


def with_settings(config: ConfigDict, given: list[str]) -> ConfigDict:
    """A trained model's configuration with settings like "evaluation.tracklets_per_batch=8".

    Raises InputError for what is no setting, and for one that would make the model another one.
    """
    changes = {name: value for name, _, value in (one.partition("=") for one in given)}
    changed = checked_config(changed_config(config, changes)) if changes else config
    if other := differences(config, changed, FREE_AT_EVALUATION):
        raise InputError(f"--set {given[0]}: the model was trained otherwise: {'; '.join(other)}")
    return changed


def plan(
    config: ConfigDict, stored: StoredModel, listed: Sequence[ListedTracklet], mesh: Mesh
) -> dict:
    """All that decides, to the bit, what is made: a stopped command goes on where it is equal."""
    settings = json.loads(config.to_json_best_effort())
    del settings["data"]["workers"]
    return {
        "model": weights_digest(stored.manager, stored.metadata.step),
        "manifest": tracklets_digest(listed),
        "configuration": settings,
        "device": sharding.device_names(mesh),
        "version of a package": checkpoint.versions(),
    }


def batch_maker(stored: StoredModel, config: ConfigDict, mesh: Mesh) -> Callable:
    """(tracklets, options) → batches of descriptors, by the stored model."""
    trained = stored.metadata
    method = methods.named(config.method)
    variables = checkpoint.stored_variables(method, stored.manager, trained.step)
    variables = jax.device_put(variables, sharding.replicated(mesh))
    embed = embedding.make_embed(method, method.Model(config, trained.facts), config, mesh)

    def batches(tracklets: Sequence, **how: int | bool):
        return embedding.embedded_batches(embed, variables, tracklets, config, mesh, **how)

    return batches


def write(
    options: argparse.Namespace,
    made: Mapping[str, np.ndarray],
    left_out: LeftOut,
    listed: Sequence[ListedTracklet],
    source: Source,
) -> tuple[int, ...]:
    """Write the features and the list of what is left out, and print it; the embedding's shape."""
    rows = [row for row in range(len(listed)) if row not in left_out.tracklets]
    stored = {name: as_dtype(array[rows], options.dtype) for name, array in made.items()}
    columns = feature_file.tracklet_columns([listed[row] for row in rows])
    arrays = {name: array for name, (array, _) in stored.items()}
    texts = {"distance": source.distance, "model": source.fingerprint, "title": source.title}
    text = {name: np.array(value) for name, value in texts.items()}
    feature_file.write_features(options.out, **arrays, **columns, **text)
    lines, file = left_out.lines(listed), f"{options.out}.left_out.jsonl"
    write_left_out(Path(file), lines)
    if lines:
        print(enumeration([": ".join(line.values()) for line in lines], "\n", "\nand {} more"))
        gone, standing = len(left_out.tracklets), len(left_out.frames)
        print(f"{file}: {gone} tracklets are left out, neighbours stand in for {standing} frames")
    if options.dtype != "float32":
        error = max(error for _, error in stored.values())
        print(f"{options.dtype} changes a descriptor by at most {error:.1e} of its length")
    return arrays["embedding"].shape


def print_missing(out: str, unfinished: Unfinished) -> None:
    """What is said by a process whose part is made, and that does not write the file."""
    missing = sum(len(unfinished.missing(name)) for name in unfinished.counts)
    if missing == sum(unfinished.counts.values()) and Path(out).exists():
        print(f"{out}: another process has written it")
    else:
        print(f"{out}: part {unfinished.share} is made, {missing} batches of others are not yet")


def main() -> None:
    options = flags()
    memory.keep_freed()
    feature_file.check_writable(options.out)
    if Path(options.out).exists() and not options.overwrite:
        raise InputError(f"{options.out} exists: choose another --out, or say --overwrite")
    listed = manifest.read_tracklets(options.tracklets, options.modality)
    stored = stored_model(options.checkpoint, options.which)
    compiling.keep_compiled()
    mesh = sharding.device_mesh()
    config = embedding.extraction_config(
        with_settings(stored.metadata.config, options.set),
        len(listed),
        mesh.size,
        options.batch,
        options.workers,
    )
    tracklets = [tracklet for tracklet, _ in listed]
    check_tracklets(methods.named(config.method), tracklets, stored.metadata.facts, config)
    sets = {"embedding": tracklets}
    if options.halves:
        sets |= zip(feature_file.HALVES, embedding.halved_tracklets(tracklets), strict=True)
    decided = plan(config, stored, listed, mesh) | {"--bad-frames": options.bad_frames}
    counts = {name: embedding.batch_count(ones, config, mesh) for name, ones in sets.items()}
    own = options.process or Share(*hosts.number_among(os.environ))
    with Unfinished(options.out, decided, counts, own, options.overwrite) as unfinished:
        make_batches = batch_maker(stored, config, mesh)
        extract_share(make_batches, sets, options.bad_frames, unfinished)
        with unfinished.whole() as whole:
            if whole:
                made, left_out = extracted(sets, unfinished)
                content = checkpoint.content_of(stored.manager, stored.metadata.step)
                source = named_source(config, content, stored.metadata.step)
                count, *shape = write(options, made, left_out, listed, source)
    if not whole:
        print_missing(options.out, unfinished)
        return
    step = stored.metadata.step
    print(f"{options.out}: {count} tracklets, descriptors {tuple(shape)}, step {step}")


if __name__ == "__main__":
    run(main)

"""Preparation: writes the shards of a data set in parallel; `readers.prepared` reads them."""

import contextlib
import io
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from ml_collections import ConfigDict

from dinogrl_jax.data import datasets, frames, transforms
from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.problems import raise_if_any
from dinogrl_jax.data.readers import prepared
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.interface.progress import Progress

UNCOMPRESSED = "group_size:1,uncompressed"  # image files do not shrink, and each is read alone
VERSION = "1.0.0"  # of the data set, as tensorflow-datasets sees it


class Encoding(NamedTuple):
    """How frames are stored."""

    kind: str = "original"  # the bytes of the file; "jpeg" or "png" encode it anew at a size
    height: int = 0  # pixels
    width: int = 0
    quality: int = 95  # of JPEG


class Shard(NamedTuple):
    """One file of a split, with the tracklets that it holds."""

    name: str
    split: str
    tracklets: tuple[Tracklet, ...]


def prepare(
    config: ConfigDict,
    out: str,
    *,
    encoding: Encoding = Encoding(),  # noqa: B008
    frames_per_shard: int = 16384,
    workers: int = 2,
) -> dict[str, Any]:
    """Write the data set of a section `data` to the folder `out`; returns prepared.json's content.

    All tracklets are written, also those that are too short for training. The same call continues
    a preparation that was stopped. `workers` are processes (0 or 1: this one); the caller's script
    has to guard its main block.

    Raises InputError if `out` belongs to something else, and for all frames that cannot be read.
    """
    config = config.copy_and_resolve_references()
    config.update(minimum_frames=1, discard_train="", discard_test="")
    if prepared.is_prepared(config.root):
        raise InputError(f"{config.root} is prepared already")
    sets = dict(zip(("train", "test"), datasets.read(config), strict=True))
    about = {
        "format": prepared.FORMAT,
        "dataset": config.dataset,
        "settings": {name: config[name] for name in prepared.SETTINGS},
        "encoding": encoding._asdict(),
        "frames_per_shard": frames_per_shard,
    }
    shards = planned_shards(sets, config.dataset, frames_per_shard)
    folder = preparation_folder(out, about)
    root = os.path.dirname(config.root) if os.path.isfile(config.root) else config.root
    done = write_shards(shards, partial(write_shard, folder, root, encoding), workers)
    write_index(folder, root, shards)
    write_metadata(folder, config.dataset, shards, done)
    files = {shard.name: done[shard.name] for shard in shards}
    files[prepared.INDEX_FILE] = prepared.file_facts(str(folder / prepared.INDEX_FILE))
    about |= {"files": files, "tracklets": {split: len(found) for split, found in sets.items()}}
    write_text(folder / prepared.ABOUT_FILE, json.dumps(about, indent=2) + "\n")
    for shard in shards:
        done_file(folder, shard.name).unlink(missing_ok=True)
    (folder / "unfinished.json").unlink(missing_ok=True)
    return about


def planned_shards(sets: dict[str, list[Tracklet]], dataset: str, size: int) -> list[Shard]:
    """The shards of each split: complete tracklets in their order, about `size` frames in each."""
    shards = []
    for split, tracklets in sets.items():
        groups: list[list[Tracklet]] = []
        room = 0
        for tracklet in tracklets:
            if room <= 0:
                groups.append([])
                room = size
            groups[-1].append(tracklet)
            room -= len(tracklet.frames)
        for number, group in enumerate(groups):
            place = f"{number:05d}-of-{len(groups):05d}"
            name = f"{dataset}-{split}{frames.SHARD}{place}"
            shards.append(Shard(name, split, tuple(group)))
    return shards


def preparation_folder(out: str, about: dict[str, Any]) -> Path:
    """The folder `out`: new, or that of an unfinished preparation with the same settings."""
    folder = Path(out)
    plan = folder / "unfinished.json"
    if folder.exists() and any(folder.iterdir()):
        if not plan.is_file() or json.loads(plan.read_text()) != about:
            raise InputError(f"{out} is not empty and no unfinished preparation of the same kind")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(plan, json.dumps(about))
    return folder


def write_shards(shards: Sequence[Shard], write: partial, workers: int) -> dict[str, dict]:
    """Write all shards; the size, checksum and number of frames of each, by its name."""
    done, problems = {}, []
    total = sum(len(tracklet.frames) for shard in shards for tracklet in shard.tracklets)
    with Progress("preparing", total, "frames") as progress:
        for shard, (facts, unreadable) in zip(
            shards, map_in_processes(write, shards, workers), strict=True
        ):
            done[shard.name] = facts
            problems += unreadable
            progress.add(sum(len(tracklet.frames) for tracklet in shard.tracklets))
    raise_if_any(problems, "frames that cannot be prepared")
    return done


def write_shard(
    folder: Path, root: str, encoding: Encoding, shard: Shard
) -> tuple[dict[str, Any], list[str]]:
    """Write a shard unless it is complete; its size, checksum and count, and unreadable frames."""
    place, known = folder / shard.name, done_file(folder, shard.name)
    if known.is_file() and place.is_file():
        facts = json.loads(known.read_text())
        if place.stat().st_size == facts["bytes"]:
            return facts, []
    draft = folder / f".{shard.name}.draft"
    writer, problems = ArrayRecordWriter(str(draft), UNCOMPRESSED), []
    features, count = record_features(), 0
    for tracklet in shard.tracklets:
        for frame in tracklet.frames:
            try:
                image = encoded_frame(frame, encoding)
            except (OSError, InputError) as error:
                problems.append(
                    str(error) if isinstance(error, InputError) else f"{frame}: {error}"
                )
                continue
            writer.write(
                serialized_example(features, image, os.path.relpath(frame, root), tracklet)
            )
            count += 1
    writer.close()
    if problems:
        draft.unlink()
        return {}, problems
    draft.replace(place)
    facts = prepared.file_facts(str(place)) | {"frames": count}
    write_text(known, json.dumps(facts))
    return facts, []


def done_file(folder: Path, shard: str) -> Path:
    """The file whose existence says that a shard is complete."""
    return folder / f".{shard}.done"


def encoded_frame(frame: str, encoding: Encoding) -> bytes:
    """The bytes of the file, or of the frame encoded anew at its size in training."""
    if encoding.kind == "original":
        return frames.file_bytes(frame)
    picture, out = transforms.image(frame, encoding.height, encoding.width), io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1}
    if encoding.kind == "jpeg":
        options = {"quality": encoding.quality, "subsampling": 0}
    picture.save(out, encoding.kind, **options)
    return out.getvalue()


def tensorflow_datasets_module() -> Any:
    """tensorflow-datasets, imported without the warnings that it prints without TensorFlow."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import tensorflow_datasets
    return tensorflow_datasets


def record_features() -> Any:
    features = tensorflow_datasets_module().features
    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3)),
            "name": features.Text(),
            "identity": features.Text(),
            "camera": features.Scalar(np.int64),
            "modality": features.Text(),
            "role": features.Text(),
        }
    )


def serialized_example(features: Any, image: bytes, name: str, tracklet: Tracklet) -> bytes:
    """The record of a frame: a serialised tf.train.Example."""
    fields = {
        "image": image,
        "name": name,
        "identity": str(tracklet.identity),
        "camera": tracklet.camera,
        "modality": tracklet.modality,
        "role": tracklet.role,
    }
    return features.serialize_example(features.encode_example(fields))


def write_index(folder: Path, root: str, shards: Sequence[Shard]) -> None:
    lines = []
    for shard in shards:
        first = 0
        for tracklet in shard.tracklets:
            names = tuple(os.path.relpath(frame, root) for frame in tracklet.frames)
            relative = tracklet._replace(frames=names)
            lines.append(prepared.Entry(shard.split, relative, shard.name, first).line())
            first += len(names)
    write_text(folder / prepared.INDEX_FILE, "\n".join(lines) + "\n")


def write_metadata(
    folder: Path, dataset: str, shards: Sequence[Shard], done: dict[str, dict]
) -> None:
    """Write dataset_info.json and features.json, which tensorflow-datasets opens the folder by."""
    tfds = tensorflow_datasets_module()
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=dataset, filetype_suffix="array_record"
    )
    splits = []
    for split in ("train", "test"):
        own = [done[shard.name] for shard in shards if shard.split == split]
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[facts["frames"] for facts in own],
                num_bytes=sum(facts["bytes"] for facts in own),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=record_features(),
        split_infos=splits,
        version=VERSION,
        check_data=False,  # the check needs TensorFlow
    )


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())

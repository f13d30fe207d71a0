"""Preparation: writes the shards of a data set in parallel; `readers.prepared` reads them."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from ml_collections import ConfigDict

from dinogrl_jax.data import datasets, frames, pictures, transforms
from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.problems import raise_if_any
from dinogrl_jax.data.readers import prepared
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface import locks
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write, read_json, write_json
from dinogrl_jax.interface.locks import lock
from dinogrl_jax.interface.progress import Progress

UNCOMPRESSED = "group_size:1,uncompressed"  # image files do not shrink, and each is read alone
PLAN_FILE = "unfinished.json"  # the settings of a preparation that has not ended
VERSION = "1.0.0"  # of the data set, as tensorflow-datasets sees it


class Encoding(NamedTuple):
    """How frames are stored."""

    kind: str = "original"  # the bytes of the file; "jpeg" or "png" encode it anew at a size
    height: int = 0  # pixels
    width: int = 0
    quality: int = 95  # of JPEG
    exif_rotation: bool = False  # turn frames first, as their EXIF orientation says


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
    root = os.path.dirname(config.root) if os.path.isfile(config.root) else config.root
    with lock(Path(out)):
        return write_prepared(sets, root, preparation_folder(out, about), encoding, workers, about)


def write_prepared(
    sets: dict[str, list[Tracklet]],
    root: str,
    folder: Path,
    encoding: Encoding,
    workers: int,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write the shards of sets below `root` and what describes them, into a folder that is held.

    Returns the content of prepared.json, which is `about` and more.
    """
    shards = planned_shards(sets, about["dataset"], about["frames_per_shard"])
    done = write_shards(shards, partial(write_shard, folder, root, encoding), workers)
    write_index(folder / prepared.INDEX_FILE, root, shards)
    write_metadata(folder, about["dataset"], shards, done)
    files = done | {prepared.INDEX_FILE: prepared.file_facts(str(folder / prepared.INDEX_FILE))}
    about |= {"files": files, "tracklets": {split: len(found) for split, found in sets.items()}}
    write_json(folder / prepared.ABOUT_FILE, about)
    for leftover in (*folder.glob(".*.done"), folder / PLAN_FILE):
        leftover.unlink()
    return about


def planned_shards(sets: dict[str, list[Tracklet]], dataset: str, size: int) -> list[Shard]:
    """The shards of each split: complete tracklets in their order, about `size` frames in each."""
    shards = []
    for split, tracklets in sets.items():
        groups, room = [], 0
        for tracklet in tracklets:
            if room <= 0:
                groups.append([])
                room = size
            groups[-1].append(tracklet)
            room -= len(tracklet.frames)
        for number, group in enumerate(groups):
            name = f"{dataset}-{split}{frames.SHARD}{number:05d}-of-{len(groups):05d}"
            shards.append(Shard(name, split, tuple(group)))
    return shards


def preparation_folder(out: str, about: dict[str, Any]) -> Path:
    """The folder `out`: empty, or that of an unfinished preparation with the same settings."""
    folder = Path(out)
    plan = folder / PLAN_FILE
    if any(path.name != locks.NAME for path in folder.iterdir()):
        if prepared.is_prepared(out) and not plan.is_file():
            raise InputError(f"{out} is prepared already: use it, or choose another folder")
        if not plan.is_file() or read_json(plan) != about:
            raise InputError(f"{out} is not empty and no unfinished preparation of the same kind")
    write_json(plan, about)
    return folder


def write_shards(shards: Sequence[Shard], write: partial, workers: int) -> dict[str, dict]:
    """Write all shards; the size, checksum and number of frames of each, by its name."""
    done, problems = {}, []
    counts = [sum(len(tracklet.frames) for tracklet in shard.tracklets) for shard in shards]
    with Progress("preparing", sum(counts), "frames") as progress:
        written = map_in_processes(write, shards, workers)
        for shard, count, (facts, unreadable) in zip(shards, counts, written, strict=True):
            done[shard.name] = facts
            problems += unreadable
            progress.add(count)
    raise_if_any(problems, "frames that cannot be prepared")
    return done


def write_shard(
    folder: Path, root: str, encoding: Encoding, shard: Shard
) -> tuple[dict[str, Any], list[str]]:
    """Write a shard unless it is complete; its size, checksum and count, and unreadable frames.

    It is complete if there is a file `.<name>.done`, which holds the first three.
    """
    place, known = folder / shard.name, folder / f".{shard.name}.done"
    if (facts := facts_of_complete(known, place)) is not None:
        return facts, []
    draft = folder / f".{shard.name}.draft"
    draft.unlink(missing_ok=True)  # it may be a link, which the writer would follow
    with errors_of_writing(place, draft):
        count, problems = write_records(draft, root, encoding, shard)
    if problems:
        draft.unlink()
        return {}, problems
    draft.replace(place)
    facts = prepared.file_facts(str(place)) | {"frames": count}
    write_json(known, facts)
    return facts, []


@contextlib.contextmanager
def errors_of_writing(place: Path, draft: Path) -> Iterator[None]:
    """InputError in the place of what array_record raises where it cannot write."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        draft.unlink(missing_ok=True)
        reason = str(error).partition(";")[0][:80]
        raise InputError(
            f"{place} cannot be written ({reason}): make room, the same command then continues"
        ) from error


def write_records(
    draft: Path, root: str, encoding: Encoding, shard: Shard
) -> tuple[int, list[str]]:
    """Write the frames of a shard; how many there are, and the unreadable ones."""
    writer, problems = ArrayRecordWriter(str(draft), UNCOMPRESSED), []
    features, count = record_features(), 0
    for tracklet in shard.tracklets:
        for frame in tracklet.frames:
            try:
                image = encoded_frame(frame, encoding)
            except InputError as error:
                problems.append(str(error))
            else:
                name = os.path.relpath(frame, root)
                writer.write(serialized_example(features, image, name, tracklet))
                count += 1
    writer.close()
    return count, problems


def facts_of_complete(known: Path, place: Path) -> dict[str, Any] | None:
    """What `known` says of a shard at `place`; None unless that is complete."""
    with contextlib.suppress(InputError):
        facts = read_json(known, {"bytes": int, "sha256": str, "frames": int})
        if place.is_file() and place.stat().st_size == facts["bytes"]:
            return facts
    return None


def encoded_frame(frame: str, encoding: Encoding) -> bytes:
    """The bytes of the file, or of the frame encoded anew at its size in training.

    Raises InputError for what is no picture: whatever else a list names stays where it is.
    """
    if encoding.kind == "original":
        content = frames.file_bytes(frame)
        pictures.check_picture(frame, content)
        return content
    size, out = (encoding.height, encoding.width), io.BytesIO()
    picture = transforms.image(frame, *size, upright=encoding.exif_rotation)
    jpeg = {"quality": encoding.quality, "subsampling": 0}
    picture.save(out, encoding.kind, **(jpeg if encoding.kind == "jpeg" else {"compress_level": 1}))
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
    names = ("identity", "camera", "modality", "role")
    fields = {"image": image, "name": name, **{key: getattr(tracklet, key) for key in names}}
    fields["identity"] = str(tracklet.identity)
    return features.serialize_example(features.encode_example(fields))


def write_index(path: Path, root: str, shards: Sequence[Shard]) -> None:
    """Write a line for each tracklet."""
    with atomic_write(path) as file:
        for shard in shards:
            first = 0
            for tracklet in shard.tracklets:
                names = tuple(os.path.relpath(frame, root) for frame in tracklet.frames)
                relative = tracklet._replace(frames=names)
                line = prepared.index_line(shard.split, relative, shard.name, first)
                file.write(f"{line}\n".encode())
                first += len(names)


def write_metadata(
    folder: Path, dataset: str, shards: Sequence[Shard], done: dict[str, dict]
) -> None:
    """Write dataset_info.json and features.json, which tensorflow-datasets opens the folder by."""
    tfds = tensorflow_datasets_module()
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=dataset, filetype_suffix="array_record"
    )
    splits = []
    for split in dict.fromkeys(shard.split for shard in shards):  # an empty one has no entry
        own = [done[shard.name] for shard in shards if shard.split == split]
        lengths = [facts["frames"] for facts in own]
        size = sum(facts["bytes"] for facts in own)
        splits.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=record_features(),
        split_infos=splits,
        version=VERSION,
        check_data=False,  # the check needs TensorFlow
    )

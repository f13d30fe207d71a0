"""What a gallery keeps of a tracklet, made of what a program or a manifest says of it."""

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from dinogrl_jax.data.readers.spelling import UNKNOWN_WORDS
from dinogrl_jax.data.tracklets import MODALITIES
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import UNPRINTABLE, shortened
from dinogrl_jax.retrieval.report.frames import small_jpeg
from dinogrl_jax.retrieval.store.database import Entry

LONGEST = 4096  # letters of a name


def new_ones(entries: list[Entry], known: list[bool]) -> list[int]:
    """The numbers of entries that are not known, each once."""
    seen, new = set(), []
    for number, (entry, there) in enumerate(zip(entries, known, strict=True)):
        if not there and entry.same not in seen:
            new.append(number)
        if entry.same is not None:
            seen.add(entry.same)
    return new


def entries_of_columns(
    count: int, modality, camera, identity, time, frames, name, thumbnail
) -> list[Entry]:
    """The columns of `Gallery.add` as a record of each tracklet."""
    modality = [modality] * count if isinstance(modality, str) else modality
    columns = {
        "modality": modality,
        "camera": [""] * count if camera is None else camera,
        "identity": [""] * count if identity is None else identity,
        "time": [None] * count if time is None else time,
        "frames": [()] * count if frames is None else frames,
        "name": [""] * count if name is None else name,
        "thumbnail": [None] * count if thumbnail is None else thumbnail,
    }
    for title, column in columns.items():
        if len(column) != count:
            raise InputError(f"{title} has {len(column)} entries for {count} descriptors")
    check_modalities(columns["modality"])
    return [_entry(*values) for values in zip(*columns.values(), strict=True)]


def _entry(modality, camera, identity, time, frames, name, thumbnail) -> Entry:
    frames = tuple(os.fspath(x) for x in frames)
    name = str(name) or (frames[0] if frames else "")
    if len(name) > LONGEST:
        raise InputError(f"the name {shortened(name)} has {len(name)} letters")
    seconds = None if time is None else seconds_of(time)
    camera = label_text(camera, "camera")
    if thumbnail is None:
        thumbnail = small_jpeg(frames[len(frames) // 2]) if frames else b""
    same = None
    if name:
        told = json.dumps([name, list(frames), camera, str(modality), seconds])
        same = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
    identity = label_text(identity, "identity")
    return Entry(
        _storable(name), identity, camera, str(modality), seconds,
        tuple(map(_storable, frames)), bytes(thumbnail), same,
    )  # fmt: skip


def _storable(text: str) -> str:
    """A file's name as text; bytes that are none become codes, as a database takes no others."""
    return text.encode("utf-8", "backslashreplace").decode()


def label_text(value: object, what: str) -> str:
    """A camera or an identity as text; "" unknown."""
    text = "" if value is None else str(value)
    if len(text) > LONGEST or UNPRINTABLE.search(text):
        raise InputError(f"{what} {shortened(text)} is too long, or has letters without a shape")
    return "" if text.strip().lower() in UNKNOWN_WORDS else text


def check_modalities(modalities: Sequence[str]) -> None:
    for wrong in set(map(str, modalities)) - set(MODALITIES):
        raise InputError(f"modality {shortened(wrong)}: use {' or '.join(MODALITIES)}")


def seconds_of(time: object) -> float:
    """Seconds since 1970 (UTC) of a time; InputError for what is none."""
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InputError(f"time {shortened(str(time))}: give ISO 8601, or seconds") from error
    if not np.isfinite(seconds):
        raise InputError(f"time {time}: give ISO 8601, or seconds since 1970")
    return seconds

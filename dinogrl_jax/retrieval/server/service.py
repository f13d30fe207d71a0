"""What the server does, apart from HTTP: from the files of a clip to ranked tracklets; labels."""

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import numpy as np
from fastapi import HTTPException
from jaxtyping import UInt8
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.server.batches import Batches
from dinogrl_jax.retrieval.server.decoders import Decoders, Limits
from dinogrl_jax.retrieval.server.decoding import Refused
from dinogrl_jax.retrieval.server.metrics import Metrics
from dinogrl_jax.retrieval.server.queries import Query, Recent, kept_frames, query_key
from dinogrl_jax.retrieval.store import labels
from dinogrl_jax.retrieval.store.database import Entry
from dinogrl_jax.retrieval.store.gallery import Found, Gallery
from dinogrl_jax.retrieval.store.overview import Overview, entry_at, gallery_overview
from dinogrl_jax.retrieval.store.source import Source

UNUSABLE, GONE, UNAVAILABLE, FULL_DISK = 422, 410, 503, 507
SEARCHES = 4  # at a time: each holds a number for each tracklet
LONGEST_NAME = 80  # letters of a file's name in messages
FULL = (errno.ENOSPC, errno.EDQUOT)
WARM_UP = [[np.full((8, 8, 3), 128, np.uint8)]]


@runtime_checkable
class EmbeddingModel(Protocol):
    """What `dinogrl_jax.load` returns."""

    config: ConfigDict
    source: Source

    def embed(self, clips: Sequence, modality: str | Sequence[str]) -> Any: ...


class Upload(NamedTuple):
    """A file that somebody has sent."""

    name: str  # as the sender calls it: for messages alone
    file: BinaryIO


class Filters(NamedTuple):
    """Which tracklets count, as `Gallery.search` takes it."""

    cameras: list[str] | None = None
    modalities: list[str] | None = None
    since: str | None = None
    until: str | None = None


class Service:
    """A model and a gallery; its methods are the server's answers.

    Raises InputError for a gallery of another model. Its methods raise HTTPException, whose text is
    one line.
    """

    def __init__(self, model: EmbeddingModel, folder: Path, limits: Limits) -> None:
        self.model, self.folder, self.limits = model, folder, limits
        self.source = Gallery.open(folder, model).source
        self.metrics, self.recent = Metrics(), Recent()
        data = model.config.data
        self.decoders = Decoders(
            limits, bool(data.get("exif_rotation", False)), tuple(data.get("deep_range", ()))
        )
        size = model.config.evaluation.tracklets_per_batch
        self.batches = Batches(model.embed, size, self.metrics.batch.observe)
        processors = os.cpu_count() or 1
        # Decoded clips are large: so many wait for the model, the others are files still.
        self._clips = asyncio.Semaphore(2 * size + processors)
        self._decoding = asyncio.Semaphore(processors)
        self._searching = asyncio.Semaphore(SEARCHES)
        # One thread alone waits where another process is writing.
        self._writing = asyncio.Semaphore(1)

    def warm_up(self) -> None:
        """Compile what the first clip of each modality would wait for."""
        for modality in ("visible", "infrared"):
            self.model.embed(WARM_UP, modality)

    def close(self) -> None:
        self.batches.close()
        self.decoders.close()

    async def query(self, uploads: Sequence[Upload], modality: str) -> tuple[Query, int]:
        """The descriptor of the clip in files, and how many frames it has."""
        async with self._clips:
            return await self._query(uploads, modality)

    async def _query(self, uploads: Sequence[Upload], modality: str) -> tuple[Query, int]:
        with self._timed("decode"):
            async with self._decoding:
                pictures = await asyncio.to_thread(self._pictures, uploads)
        key = await asyncio.to_thread(query_key, pictures, modality)
        query = self.recent.get(key)
        if query is None:
            with self._timed("embed"), _refused(InputError, UNUSABLE):
                future = self.batches.descriptor(pictures, modality)
                descriptor = await asyncio.wrap_future(future)
            query = Query(key, modality, descriptor, kept_frames(pictures))
            self.recent.put(query)
        return query, len(pictures)

    async def search(self, query: Query, k: int, filters: Filters) -> tuple[list[Found], dict]:
        """The tracklets nearest to a query, and what people said of them and it, by place."""

        def answer() -> tuple[list[Found], dict]:
            # Opened each time, for the folder may hold another model's gallery by now.
            gallery = Gallery.open(self.folder, self.model)
            found = gallery.search(query.descriptor, k, **filters._asdict())
            said = labels.stored_labels(self.folder, query.key)
            return found, {x.place: x.label for x in said}

        with self._timed("search"), _refused(InputError):
            async with self._searching:
                return await asyncio.to_thread(answer)

    async def overview(self) -> Overview:
        with _refused(InputError):
            found = await asyncio.to_thread(gallery_overview, self.folder)
        self.metrics.tracklets.set(found.tracklets)
        return found

    async def check(self) -> None:
        """Raise HTTPException unless clips can be searched for."""
        await self.overview()
        if not self.batches.is_alive():
            raise HTTPException(UNAVAILABLE, "the model has stopped: start the server again")

    async def entry(self, place: int) -> Entry:
        """What the gallery keeps of a tracklet."""
        with _refused(InputError):
            found = await asyncio.to_thread(entry_at, self.folder, place)
        if found is None:
            raise HTTPException(404, f"there is no tracklet {place}")
        return found

    async def frame(self, place: int, number: int) -> bytes:
        """A small JPEG of a tracklet's frame."""
        frames = (await self.entry(place)).frames
        if number >= len(frames):
            raise HTTPException(404, f"tracklet {place} has {len(frames)} frames")
        with _refused(Refused):
            async with self._decoding:
                content = await asyncio.to_thread(self.decoders.small_frame, frames[number])
        if not content:
            raise HTTPException(404, f"frame {number} of tracklet {place} cannot be read any more")
        return content

    async def write_label(self, key: str, place: int, label: str | None) -> None:
        """Keep what somebody says of a query and a tracklet; None takes it back."""
        await self.entry(place)

        def write() -> None:
            modality, pngs = labels.stored_modality(self.folder, key), []
            if modality is None:
                query = self.recent.get(key)
                if query is None:
                    text = "the server does not remember this query: search for it again"
                    raise HTTPException(GONE, text)
                modality, pngs = query.modality, query.pngs()
            labels.write_label(self.folder, key, modality, pngs, place, label)

        with _refused(InputError):
            async with self._writing:
                await asyncio.to_thread(write)
        self.metrics.labels.labels(label or "none").inc()

    async def labels(self) -> list[labels.Label]:
        with _refused(InputError):
            return await asyncio.to_thread(labels.stored_labels, self.folder)

    def _pictures(self, uploads: Sequence[Upload]) -> list[UInt8[np.ndarray, "_ _ ..."]]:
        """The pictures of files, which lie under numbers for the decoder: no name is safe."""
        names = [shown_name(x.name, number) for number, x in enumerate(uploads)]
        with _refused(Refused), tempfile.TemporaryDirectory(prefix="clip-") as folder:
            paths = [os.path.join(folder, str(number)) for number in range(len(uploads))]
            for path, upload in zip(paths, uploads, strict=True):
                with open(path, "xb") as file:
                    shutil.copyfileobj(upload.file, file)
            return self.decoders.clip(paths, names)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.metrics.seconds.labels(stage).observe(time.perf_counter() - began)


def shown_name(name: str, number: int) -> str:
    """What a file is called in messages: the end of its sender's name for it."""
    end = printable(name.replace("\\", "/").rpartition("/")[2])
    return end[-LONGEST_NAME:] or f"file {number}"


@contextlib.contextmanager
def _refused(kind: type[Exception], status: int | None = None) -> Iterator[None]:
    """Errors of a kind become answers: of a status, the error's own, or the store's."""
    try:
        yield
    except kind as error:
        status = status or getattr(error, "status", None) or store_status(error)
        raise HTTPException(status, printable(error)) from error


def store_status(error: Exception) -> int:
    """The status of HTTP for a gallery that cannot be read or written."""
    cause = error.__cause__
    if (
        isinstance(cause, sqlite3.OperationalError)
        and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    ):
        return FULL_DISK
    return FULL_DISK if is_full(cause) else UNAVAILABLE


def is_full(error: BaseException | None) -> bool:
    """Whether a disk has no room left."""
    return isinstance(error, OSError) and error.errno in FULL

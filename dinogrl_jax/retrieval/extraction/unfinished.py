"""What extractions have made so far, so that the same command goes on where it was stopped.

Beside features.npz there is a folder features.npz.unfinished until that is written: plan.json says
what is extracted and how, and each process has a folder of its own with a file for each array: the
batches that it has made one after the other, each with its number, its length and its checksum. A
batch that was being written when a process ended is made again. Batches are made alike whatever was
made before and by whom, so that the file is the same to the bit with any number of processes.
"""

import contextlib
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import FULL, read_json, write_json
from dinogrl_jax.interface.locks import lock, lock_in_turn
from dinogrl_jax.retrieval.embedding import EmbeddedBatch

HEADER = struct.Struct("<QQI")  # of a batch: its number, its bytes, and their CRC-32
PLAN, SUFFIX = "plan.json", ".batches"
WAIT = 600.0  # seconds for another process that writes the file of features


class Share(NamedTuple):
    """Which of several processes this is."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index + 1}-of-{self.count}"

    def numbers(self, batches: int) -> range:
        """Its batches, of so many."""
        return range(batches * self.index // self.count, batches * (self.index + 1) // self.count)


ALONE = Share()


class Place(NamedTuple):
    """Where a batch is."""

    path: Path
    offset: int
    length: int


class Unfinished(contextlib.ExitStack):
    """The folder of an extraction, of which this process holds its own part.

    Args:
        out: the file of features.
        plan: what JSON can hold, equal for extractions that make the same file.
        counts: how many batches each array has.
        share: of this process.
        forget: what another extraction has left there, instead of an error.

    Raises InputError for the folder of another extraction, and where another process holds the
    same share.
    """

    def __init__(
        self,
        out: str,
        plan: dict,
        counts: Mapping[str, int],
        share: Share = ALONE,
        forget: bool = False,
    ) -> None:
        super().__init__()
        self.folder, self.plan = Path(f"{out}.unfinished"), json.loads(json.dumps(plan))
        self.counts, self.share, self.held = counts, share, False
        if self.folder.is_dir():
            self._hold(forget)

    def missing(self, name: str) -> list[int]:
        """The batches that an array does not have yet, of all processes."""
        made = self._places(name)
        return [number for number in range(self.counts[name]) if number not in made]

    def batches(self, name: str) -> Iterator[EmbeddedBatch]:
        """The batches of an array in order; all have to be there."""
        places = self._places(name)
        for number in range(self.counts[name]):
            place = places[number]
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                yield _batch_of_bytes(file.read(place.length))

    def append(self, name: str, number: int, batch: EmbeddedBatch) -> None:
        """Keep one more batch of an array; InputError where it cannot be written."""
        content = _batch_bytes(batch)
        try:
            if not self.held:
                self._hold()
            with open(self._own_file(name), "ab") as file:
                file.write(HEADER.pack(number, len(content), zlib.crc32(content)) + content)
        except OSError as error:
            cure = ": make room, the same command then goes on" * (error.errno in FULL)
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}){cure}"
            ) from error

    @contextlib.contextmanager
    def whole(self) -> Iterator[bool]:
        """Whether all batches of all arrays are there; meanwhile no other process is told so.

        Where they are, the folder is removed when the block ends without an error.
        """
        with lock_in_turn(self.folder, WAIT):
            whole = not any(map(self.missing, self.counts))
            yield whole
            if whole:
                self.close()
                shutil.rmtree(self.folder, ignore_errors=True)

    def _hold(self, forget: bool = False) -> None:
        file = self.folder / PLAN
        with lock_in_turn(self.folder, WAIT):
            if file.is_file() and (other := _difference(read_json(file, dict), self.plan)):
                if not forget:
                    raise InputError(
                        f"{self.folder} is of an extraction with {other}: remove it, choose "
                        "another --out, or say --overwrite"
                    )
                for path in self._files("*"):
                    path.unlink()
            write_json(file, self.plan)
        self.enter_context(lock(self.folder / str(self.share)))
        self.held = True
        for path in (self.folder / str(self.share)).glob(f"*{SUFFIX}"):
            _remove_torn_end(path)

    def _places(self, name: str) -> dict[int, Place]:
        """Where the batches of an array are, by number, of all processes."""
        return {
            number: place for path in self._files(name) for number, place in _whole_batches(path)
        }

    def _files(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"*-of-*/{name}{SUFFIX}"))

    def _own_file(self, name: str) -> Path:
        return self.folder / str(self.share) / f"{name}{SUFFIX}"


def _difference(old: dict, new: dict) -> str:
    """The first thing in which two plans differ; empty where they do not."""
    return next((f"another {key}" for key in new if old.get(key) != new[key]), "")


def _batch_bytes(batch: EmbeddedBatch) -> bytes:
    content = io.BytesIO()
    for array in (batch.values, batch.positions):
        np.lib.format.write_array(content, array, allow_pickle=False)
    unread = {"replaced": batch.replaced, "unreadable": batch.unreadable}
    return content.getvalue() + json.dumps(unread).encode()


def _whole_batches(path: Path) -> Iterator[tuple[int, Place]]:
    """The numbers and places of a file's batches until one is not whole, as at its end may be."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(header := file.read(HEADER.size)) == HEADER.size:
            number, length, checksum = HEADER.unpack(header)
            place = Place(path, file.tell(), length)
            content = file.read(length) if length <= size - place.offset else b""
            if not content or zlib.crc32(content) != checksum:
                return
            yield number, place


def _remove_torn_end(path: Path) -> None:
    end = 0
    for _, place in _whole_batches(path):
        end = place.offset + place.length
    os.truncate(path, end)


def _batch_of_bytes(content: bytes) -> EmbeddedBatch:
    stream = io.BytesIO(content)
    arrays = [np.lib.format.read_array(stream, allow_pickle=False) for _ in range(2)]
    unread = json.loads(stream.read())
    unreadable = tuple((position, reason) for position, reason in unread["unreadable"])
    return EmbeddedBatch(*arrays, tuple(unread["replaced"]), unreadable)

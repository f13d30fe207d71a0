"""What an extraction has made so far, so that the same command goes on where it was stopped.

Beside features.npz there is a folder features.npz.unfinished until that is written: plan.json says
what is extracted and how, and a file for each array has its batches one after the other, each with
its length and its checksum. A batch that was being written when the process ended is made again.
Batches are made alike whatever was made before, so that the file is the same to the bit.
"""

import contextlib
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import FULL, read_json, write_json
from dinogrl_jax.interface.locks import lock
from dinogrl_jax.retrieval.embedding import EmbeddedBatch

HEADER = struct.Struct("<QI")  # of a batch: its bytes, and their CRC-32
PLAN = "plan.json"


class Unfinished(contextlib.ExitStack):
    """The folder of an extraction, which this process holds from its first batch on.

    Args:
        out: the file of features.
        plan: what JSON can hold, equal for extractions that make the same file.
        forget: what another extraction has left there, instead of an error.

    Raises InputError for the folder of another extraction, and where another process holds it.
    """

    def __init__(self, out: str, plan: dict, forget: bool = False) -> None:
        super().__init__()
        self.folder, self.plan = Path(f"{out}.unfinished"), json.loads(json.dumps(plan))
        self.held = False
        if self.folder.is_dir():
            self._hold(forget)

    def batches(self, name: str) -> Iterator[EmbeddedBatch]:
        """The batches that an array has so far, in order; to be taken before more are appended."""
        with contextlib.suppress(FileNotFoundError), open(self._file(name), "r+b") as file:
            yield from _whole_batches(file)
            file.truncate()

    def append(self, name: str, batch: EmbeddedBatch) -> None:
        """Keep one more batch of an array; InputError where it cannot be written."""
        content = _batch_bytes(batch)
        try:
            if not self.held:
                self._hold()
            with open(self._file(name), "ab") as file:
                file.write(HEADER.pack(len(content), zlib.crc32(content)) + content)
        except OSError as error:
            cure = ": make room, the same command then goes on" * (error.errno in FULL)
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}){cure}"
            ) from error

    def remove(self) -> None:
        """Forget everything: the file of features is written, or is made anew."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _hold(self, forget: bool = False) -> None:
        self.enter_context(lock(self.folder))
        self.held, file = True, self.folder / PLAN
        if file.is_file() and (other := _difference(read_json(file, dict), self.plan)):
            if not forget:
                raise InputError(
                    f"{self.folder} is of an extraction with {other}: remove it, choose another "
                    "--out, or say --overwrite"
                )
            for path in self.folder.glob("*.batches"):
                path.unlink()
        write_json(file, self.plan)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.batches"


def _difference(old: dict, new: dict) -> str:
    """The first thing in which two plans differ; empty where they do not."""
    return next((f"another {key}" for key in new if old.get(key) != new[key]), "")


def _batch_bytes(batch: EmbeddedBatch) -> bytes:
    content = io.BytesIO()
    for array in (batch.values, batch.positions):
        np.lib.format.write_array(content, array, allow_pickle=False)
    unread = {"replaced": batch.replaced, "unreadable": batch.unreadable}
    return content.getvalue() + json.dumps(unread).encode()


def _whole_batches(file: io.BufferedRandom) -> Iterator[EmbeddedBatch]:
    """The batches of a file until one is not whole, at whose beginning the file then stands."""
    size = os.fstat(file.fileno()).st_size
    while True:
        start, header = file.tell(), file.read(HEADER.size)
        if len(header) == HEADER.size:
            length, checksum = HEADER.unpack(header)
            content = file.read(length) if length <= size - file.tell() else b""
            if content and zlib.crc32(content) == checksum:
                yield _batch_of_bytes(content)
                continue
        file.seek(start)
        return


def _batch_of_bytes(content: bytes) -> EmbeddedBatch:
    stream = io.BytesIO(content)
    arrays = [np.lib.format.read_array(stream, allow_pickle=False) for _ in range(2)]
    unread = json.loads(stream.read())
    unreadable = tuple((position, reason) for position, reason in unread["unreadable"])
    return EmbeddedBatch(*arrays, tuple(unread["replaced"]), unreadable)

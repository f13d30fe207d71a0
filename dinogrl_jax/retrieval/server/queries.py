"""The last queries: an answer that somebody labels needs their frames, the next search does not
need the model again."""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from dinogrl_jax.data.sampling import uniform

MOST_FRAMES = 32  # that are kept of a query, at equal distances
MOST_BYTES = 256 << 20  # of all queries that are remembered

Pictures = Sequence[UInt8[np.ndarray, "_ _ ..."]]


class Query(NamedTuple):
    """A clip that somebody has searched for."""

    key: str  # a digest of its pictures and its modality
    modality: str
    descriptor: Float32[np.ndarray, "p d"]
    frames: tuple[UInt8[np.ndarray, "_ _ ..."], ...]

    @property
    def size(self) -> int:
        return self.descriptor.nbytes + sum(x.nbytes for x in self.frames)

    def pngs(self) -> list[bytes]:
        """The frames as files, without a loss."""
        files = []
        for frame in self.frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "PNG")
            files.append(buffer.getvalue())
        return files


def query_key(pictures: Pictures, modality: str) -> str:
    """What is equal for equal pictures of one modality."""
    told = hashlib.sha256(modality.encode())
    for picture in pictures:
        told.update(str(picture.shape).encode())
        told.update(np.ascontiguousarray(picture))
    return told.hexdigest()[:32]


def kept_frames(pictures: Pictures) -> tuple[UInt8[np.ndarray, "_ _ ..."], ...]:
    """Those that are kept of a clip; copies, so that the others are not."""
    chosen = uniform(len(pictures), min(len(pictures), MOST_FRAMES))
    return tuple(pictures[i].copy() for i in chosen.tolist())


class Recent:
    """Queries by their keys; the ones that nobody has asked for the longest are forgotten."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._size = most, 0
        self._queries: OrderedDict[str, Query] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Query | None:
        with self._lock:
            if key in self._queries:
                self._queries.move_to_end(key)
            return self._queries.get(key)

    def put(self, query: Query) -> None:
        """Remember it; the last one always, whatever its size."""
        with self._lock:
            if query.key in self._queries:
                return
            self._queries[query.key] = query
            self._size += query.size
            while self._size > self._most and len(self._queries) > 1:
                _, gone = self._queries.popitem(last=False)
                self._size -= gone.size

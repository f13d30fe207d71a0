"""Clips that wait together go through the model together."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

Clip = Sequence[UInt8[np.ndarray, "_ _ ..."]]
Embed = Callable[[Sequence[Clip], Sequence[str]], Float32[np.ndarray, "n p d"]]


class _Waiting(NamedTuple):
    clip: Clip
    modality: str
    future: Future


class Batches:
    """A thread that embeds clips, as many at a time as wait, up to a batch.

    Nobody waits for a batch to fill: while the model works, others arrive.

    embed: of the model, whose batch has one compiled size. observe: called with the size of each.
    """

    def __init__(
        self, embed: Embed, size: int, observe: Callable[[int], object] = lambda size: None
    ) -> None:
        self._embed, self._size, self._observe = embed, size, observe
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)
        self._thread.start()

    def descriptor(self, clip: Clip, modality: str) -> Future:
        """The descriptor [p, d] of a clip, once it is there; or the error of `embed`."""
        future: Future = Future()
        self._queue.put(_Waiting(clip, modality, future))
        return future

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Embed what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch = [self._queue.get()]
            while len(batch) < self._size and batch[-1] is not None and not self._queue.empty():
                batch.append(self._queue.get())
            going_on = batch[-1] is not None
            wanted = [x for x in batch if x and x.future.set_running_or_notify_cancel()]
            if wanted:
                self._observe(len(wanted))
                self._answer(wanted)

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            rows = self._embed([x.clip for x in batch], [x.modality for x in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for one in batch:  # the error is one clip's: the others get their answers
                self._answer([one])
            return
        for one, row in zip(batch, rows, strict=True):
            one.future.set_result(row)

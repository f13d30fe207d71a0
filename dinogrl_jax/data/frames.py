"""Frames by name: the path of an image file, or a record of a prepared shard, `<shard>#<number>`.

A record is a tf.train.Example, as tensorflow-datasets writes it. Only its image is read, with the
few lines below instead of TensorFlow or tensorflow-datasets, so that workers start fast.
"""

import functools
import io
import re
import threading
from collections.abc import Iterator

from array_record.python.array_record_module import ArrayRecordReader

from dinogrl_jax.interface.errors import InputError

SHARD = ".array_record-"
RECORD_NAME = re.compile(rf"(.*{re.escape(SHARD)}\d+-of-\d+)#(\d+)", re.DOTALL)


class FrameError(InputError):
    """A frame cannot be used; `kind` names the problem in a word or two."""

    def __init__(self, frame: str, kind: str, reason: str) -> None:
        super().__init__(f"{frame} {reason}")
        self.frame, self.kind = frame, kind

    def __reduce__(self) -> tuple:  # a worker pickles it for the training process
        return FrameError, (self.frame, self.kind, str(self).removeprefix(f"{self.frame} "))


def decoder_input(frame: str) -> str | io.BytesIO:
    """What an image decoder opens: the path itself, or the bytes of a record.

    Raises InputError for a shard or a record that cannot be read.
    """
    return io.BytesIO(file_bytes(frame)) if is_record(frame) else frame


def file_bytes(frame: str) -> bytes:
    """The bytes of the image file; OSError or InputError if it cannot be read."""
    if is_record(frame):
        return image_feature(record_bytes(frame))
    with open(frame, "rb") as file:
        return file.read()


def is_record(frame: str) -> bool:
    """Whether a frame's name is that of a record."""
    return SHARD in frame and RECORD_NAME.fullmatch(frame) is not None


def record_bytes(frame: str) -> bytes:
    """A record as it is stored; FrameError if it cannot be read."""
    shard, number = RECORD_NAME.fullmatch(frame).groups()
    try:
        return shard_reader(shard, threading.get_ident()).read([int(number)])[0]
    except Exception as error:  # array_record raises several types for a damaged or missing file
        reason = str(error).partition("\n")[0][:80]
        raise FrameError(
            frame, "missing record", f"cannot be read ({reason}): prepare the shard again"
        ) from error


@functools.lru_cache(maxsize=1024)
def shard_reader(shard: str, thread: int) -> ArrayRecordReader:
    """A reader for each thread, because ArrayRecord does not promise that threads may share one."""
    return ArrayRecordReader(shard)


def image_feature(example: bytes) -> bytes:
    """The bytes of the feature "image" of a serialised tf.train.Example."""
    for features in message_fields(memoryview(example)):  # Example.features
        for entry in message_fields(features):  # Features.feature, a map
            key, value = message_fields(entry)
            if key == b"image":
                (values,) = message_fields(value)  # Feature.bytes_list
                return bytes(next(message_fields(values)))  # BytesList.value
    raise InputError("a record has no feature image: prepare the shard again")


def message_fields(message: memoryview) -> Iterator[memoryview]:
    """The length-delimited fields of a protocol buffer; the way to the image has no other kind."""
    at = 0
    while at < len(message):
        at += 1  # skips the field's number and type: one byte, as numbers are below 16
        length = shift = 0
        while True:
            byte = message[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        yield message[at : at + length]
        at += length

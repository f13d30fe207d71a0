"""Frames by name: the path of an image file, or a record of a prepared shard, `<shard>#<number>`.

A picture in memory has a name too (`HeldFrame`), so that it takes the same way.

A record is a tf.train.Example, as tensorflow-datasets writes it. Only its image is read, with the
few lines below instead of TensorFlow or tensorflow-datasets, so that workers start fast.
"""

import functools
import io
import re
import threading
from collections.abc import Iterator
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import open_file, read_bytes
from dinogrl_jax.interface.text import printable

SHARD = ".array_record-"
RECORD = re.compile(r"(\d+-of-\d+)#(\d{1,18})")  # what follows SHARD in the name of a record
MOST_BYTES = 256 << 20  # of an image file
LONGEST_NUMBER = 10  # bytes, in a protocol buffer


class FrameError(InputError):
    """A frame cannot be used; `kind` names the problem in a word or two."""

    def __init__(self, frame: str, kind: str, reason: str) -> None:
        super().__init__(printable(f"{frame} {reason}"))
        self.frame, self.kind, self.reason = frame, kind, reason

    def __reduce__(self) -> tuple:  # a worker pickles it for the training process
        return FrameError, (self.frame, self.kind, self.reason)


class HeldFrame(str):
    """The name of a frame in messages; its picture is Pillow's and lies in memory."""

    def __new__(cls, name: str, picture: Any) -> "HeldFrame":
        made = super().__new__(cls, name)
        made.picture = picture
        return made

    def __reduce__(self) -> tuple:
        return HeldFrame, (str(self), self.picture)


def open_frame(frame: str) -> io.BufferedIOBase:
    """What an image decoder reads: the file itself, or the bytes of a record.

    Raises OSError for a file that cannot be opened, InputError for what is no file (a FIFO or a
    device), and for a shard or a record that cannot be read.
    """
    return io.BytesIO(file_bytes(frame)) if is_record(frame) else open_file(frame)


def file_bytes(frame: str) -> bytes:
    """The bytes of the image file; InputError if it cannot be read or is too large."""
    return record_image(frame) if is_record(frame) else read_bytes(frame, MOST_BYTES)


def is_record(frame: str) -> bool:
    """Whether a frame's name is that of a record."""
    return record_place(frame) is not None


def record_place(frame: str) -> tuple[str, int] | None:
    """The shard of a record and its number in it; None for the path of a file."""
    start, shard, rest = frame.rpartition(SHARD)
    found = RECORD.fullmatch(rest) if shard else None
    return (f"{start}{SHARD}{found[1]}", int(found[2])) if found else None


def record_image(frame: str) -> bytes:
    """The image in a record; FrameError if the record cannot be read."""
    try:
        return image_feature(record_bytes(frame))
    except (ValueError, IndexError, StopIteration) as error:
        reason = "is a damaged record: prepare the shard again"
        raise FrameError(frame, "damaged record", reason) from error


def record_bytes(frame: str) -> bytes:
    """A record as it is stored; FrameError if it cannot be read."""
    shard, number = record_place(frame)
    try:
        return shard_reader(shard, threading.get_ident()).read([number])[0]
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
    """The bytes of the feature "image" of a serialised tf.train.Example.

    Raises ValueError, IndexError or StopIteration for what is none.
    """
    for features in message_fields(memoryview(example)):  # Example.features
        for entry in message_fields(features):  # Features.feature, a map
            key, value = message_fields(entry)
            if key == b"image":
                (values,) = message_fields(value)  # Feature.bytes_list
                return bytes(next(message_fields(values)))  # BytesList.value
    raise ValueError("there is no feature image")


def message_fields(message: memoryview) -> Iterator[memoryview]:
    """The length-delimited fields of a protocol buffer; the way to the image has no other kind.

    Raises IndexError where the message ends within a field, ValueError where a length is no number.
    """
    at = 0
    while at < len(message):
        # skips the field's number and type: one byte, as numbers are below 16
        length, start = message_length(message, at + 1)
        at = start + length
        if at > len(message):
            raise IndexError("a field is longer than its message")
        yield message[start:at]


def message_length(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a byte of a protocol buffer, and where what follows it begins."""
    length = 0
    for place in range(LONGEST_NUMBER):
        byte = message[at + place]
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return length, at + place + 1
    raise ValueError("a number is too long")

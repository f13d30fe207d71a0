"""Frames by name: a path, or a record of a prepared shard, `<shard>#<number>`.

A record is a tf.train.Example, as tensorflow-datasets writes it; of its features only the image is
read, without TensorFlow and without tensorflow-datasets, so that workers start fast.
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
IMAGE_FEATURE = b"image"  # the feature of a record that holds the file


class FrameError(InputError):
    """A frame cannot be used; `kind` is a word for what is wrong with it."""

    def __init__(self, frame: str, kind: str, reason: str) -> None:
        super().__init__(f"{frame} {reason}")
        self.frame, self.kind = frame, kind

    def __reduce__(self) -> tuple:  # workers send it to the training process
        return FrameError, (self.frame, self.kind, str(self).removeprefix(f"{self.frame} "))


def decoder_input(frame: str) -> str | io.BytesIO:
    """What an image decoder opens: the path itself, or a record's bytes.

    Raises InputError for a shard or a record that cannot be read.
    """
    return (
        io.BytesIO(bytes_feature(record_bytes(frame), IMAGE_FEATURE)) if is_record(frame) else frame
    )


def file_bytes(frame: str) -> bytes:
    """The bytes of the image file; OSError or InputError where it cannot be read."""
    if is_record(frame):
        return bytes_feature(record_bytes(frame), IMAGE_FEATURE)
    with open(frame, "rb") as file:
        return file.read()


def is_record(frame: str) -> bool:
    return SHARD in frame and RECORD_NAME.fullmatch(frame) is not None


def record_bytes(frame: str) -> bytes:
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
    """A reader of its own for each thread, since nothing says that they may share one."""
    return ArrayRecordReader(shard)


def bytes_feature(example: bytes, name: bytes) -> bytes:
    """The first value of a bytes feature of a serialised tf.train.Example."""
    for features in message_fields(memoryview(example)):  # Example.features
        for entry in message_fields(features):  # Features.feature, a map
            key, value = message_fields(entry)
            if key == name:
                (values,) = message_fields(value)  # Feature.bytes_list
                return bytes(next(message_fields(values)))  # BytesList.value
    raise InputError(f"a record has no feature {name.decode()}: prepare the shard again")


def message_fields(message: memoryview) -> Iterator[memoryview]:
    """The length-delimited fields of a protocol buffer, which is all that an image's path has."""
    at = 0
    while at < len(message):
        at += 1  # number and type of the field, below 16 in all messages above
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

"""Files that were made or damaged to break the reader: refused, and nothing of them runs."""

import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files import torch_files

STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(2, np.float32)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("files") / "sound.pth"
    torch_files.write(path, STATE)
    return path


def rewritten(path, sound, changes=(), extra=(), compression=zipfile.ZIP_STORED):
    """A sound archive with other contents of some records, and more records."""
    changes = dict(changes)
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            content = changes.get(name.removeprefix("archive/"), source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in extra:
            target.writestr(name, content)
    return path


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        torch_files.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (lambda marker: Payload(os.system, f"touch {marker}"), "system"),
        (lambda marker: Payload(eval, f"open({str(marker)!r}, 'w')"), "eval"),
        (lambda marker: Payload(open, str(marker), "w"), "open"),
        (lambda marker: Payload(getattr, {}, "clear"), "getattr"),
        (lambda marker: Payload(np.zeros, 3), "zeros"),
    ],
)
def test_payloads_do_not_run(payload, name, protocol, sound, tmp_path):
    marker = tmp_path / "ran"
    data = pickle.dumps({"a": payload(marker)}, protocol)
    message = refusal(rewritten(tmp_path / "evil.pth", sound, {"data.pkl": data}))
    assert name in message or "damaged" in message  # protocols 0 and 1 begin with what is unknown
    assert protocol < 2 or "refers to" in message
    assert not marker.exists()


P = b"\x80\x02"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system"),
        (b"(X\x04\x00\x00\x00trueios\nsystem\n.", "damaged"),  # INST
        (P + b"\x82\x01.", "damaged"),  # EXT1
        (P + b"ccollections\nOrderedDict\n)\x81.", "damaged"),  # NEWOBJ
        (P + b"X\x01\x00\x00\x00a)R.", "damaged"),  # a call of what is no function
        (P + b"ctorch\nfloat32\n)R.", "damaged"),  # not even of a dtype
        (b"\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.", "__class__"),
        (P + b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "__globals__"),
        (P + b"ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
        (P + b"c\x1b[2J\nx\r\n.", r"\\x1b\[2J.x\\r"),  # names cannot speak to the terminal
        (P + b"Nr\xff\xff\xff\xff.", "no dictionary"),  # a huge index of the memo
        (P + b"X\xff\xff\xff\xffab.", "damaged"),  # a string longer than the file
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.", "damaged"),  # BYTEARRAY8 allocates at once
        (P + b"\x8b\xff\xff\xff\x7f.", "damaged"),  # LONG4
        (P + b"\x95" + b"\xff" * 8 + b".", "damaged"),  # FRAME
        (P + b"})" + b"\x85" * 300_000 + b"Ns.", "keys are no names"),  # hashing it would crash
        (P + b"]" * 300_000 + b"a" * 299_999 + b".", "no dictionary of tensors"),
        (P + b"}q\x00X\x05\x00\x00\x00modelh\x00s.", "no dictionary of tensors"),  # holds itself
        (P + b"}X\x01\x00\x00\x00aNX\x01\x00\x00\x00aNs.", "damaged"),
        (P + b"}(X\x01\x00\x00\x00aNX\x01\x00\x00\x00aNu.", "a: is there twice"),
        (P + b"}X\x01\x00\x00\x00a" + TENSOR + b"(NNNNNNtRs.", "a: has no storage"),
        (P + b"N" * (1 << 24) + b".", "data.pkl has"),
        (P + b"]" * 2_000_001 + b".", "too many objects"),  # 64 bytes of memory for one of the file
        (b"", "damaged"),
        (b".", "damaged"),
    ],
)
def test_hostile_pickles(data, reason, sound, tmp_path):
    path = rewritten(tmp_path / "evil.pth", sound, {"data.pkl": data})
    assert re.search(reason, refusal(path))


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


SIZE, STRIDE = (b"(" + number(a) + number(b) + b"t" for a, b in ((2, 3), (3, 1)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (number(2) + number(3), number(2) + number(4), "needs 28 bytes, its storage has 24"),
        (number(2) + number(3), number(-2) + number(-3), "cannot be"),
        (number(2) + number(3), number(2) + number(2**62), "cannot be"),
        (number(2) + number(3), number(0) + number(2**47), "is expanded"),
        (number(3) + number(1), number(-3) + number(1), "cannot be"),
        (number(3) + number(1), number(2**47) + number(1), "needs"),
        (number(3) + number(1), number(3), "2 axes and 1 strides"),
        (SIZE, b"(" + number(2) + b"\x88t", "cannot be"),
        (SIZE, b"X\x02\x00\x00\x0023", "cannot be"),
        (STRIDE, b"N", "cannot be"),
        (b"Q" + number(0) + SIZE, b"Q" + number(-1) + SIZE, "cannot be"),
        (b"Q" + number(0) + SIZE, b"Q" + number(1) + SIZE, "needs 28 bytes"),
        (
            number(6) + b"tQ",
            number(600) + b"tQ",
            "declares a storage of 2400 bytes, the file has 24",
        ),
        (number(6) + b"tQ", number(-6) + b"tQ", "without name or size"),
        (b"FloatStorage", b"DoubleStorage", "declares a storage of 48 bytes"),
        (b"FloatStorage", b"Size", "no storage"),
        (b"X\x01\x00\x00\x000", b"X\x0c\x00\x00\x00../../passwd", "no record data/../../passwd"),
    ],
)
def test_hostile_tensors(old, new, reason, sound, tmp_path):
    data = zipfile.ZipFile(sound).read("archive/data.pkl")
    assert old in data
    path = rewritten(tmp_path / "evil.pth", sound, {"data.pkl": data.replace(old, new, 1)})
    message = refusal(path)
    assert "a.weight: " in message and reason in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"changes": {"byteorder": b"big"}}, "not little-endian"),
        ({"changes": {"data.pkl": None}}, "no data.pkl"),
        ({"changes": {"data/0": None}}, "a.weight: has no record data/0"),
        ({"changes": {"data/0": bytes(20)}}, "a.weight: declares a storage of 24 bytes"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"extra": [("archive/data/0", bytes(24))]}, "record archive/data/0: is there twice"),
        ({"extra": [("other/data.pkl", b".")]}, "no data.pkl"),
        ({"extra": [("archive/constants.pkl", b".")]}, "is TorchScript, and holds no module"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives(options, reason, sound, tmp_path):
    assert reason in refusal(rewritten(tmp_path / "evil.pth", sound, **options))


def test_records_outside_the_folder_do_not_count(sound, tmp_path):
    path = rewritten(
        tmp_path / "a.pth", sound, extra=[("data/0", bytes(24)), ("byteorder", b"big")]
    )
    assert np.array_equal(torch_files.read(path)["a.weight"], STATE["a.weight"])


def patched(path, sound, name, **fields):
    """The archive with other numbers in a record's entry of the central directory."""
    data = bytearray(sound.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    at = data.rindex(name.encode(), 0, end) - 46
    for field, value in fields.items():
        offset, layout = {"size": (24, "<I"), "stored": (20, "<I"), "start": (42, "<I")}[field]
        struct.pack_into(layout, data, at + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": 2**31, "stored": 2**31}, "declares 2147483648 bytes, the file has"),
        ({"size": 24 + 4096, "stored": 24 + 4096}, "declares"),  # reaches into the next record
        ({"size": 2**31}, "declares"),
        ({"start": 3}, "declares"),
        ({"start": 2**31}, "no header"),
        ({"start": 0}, "declares"),  # two entries of one record
    ],
)
def test_hostile_directories(fields, reason, sound, tmp_path):
    assert reason in refusal(patched(tmp_path / "evil.pth", sound, "archive/data/0", **fields))


def test_damaged_weights_are_noticed(sound, tmp_path):
    data = sound.read_bytes()
    weight = STATE["a.weight"].tobytes()
    (tmp_path / "evil.pth").write_bytes(data.replace(weight, weight[:-1] + b"\x00"))
    assert "a.weight: record data/0 is damaged" in refusal(tmp_path / "evil.pth")


def readable_or_refused(path):
    try:
        state = torch_files.read(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.array(array).size == array.size for array in state.values())


FLIPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4)


def flipped(data: bytes, flips) -> bytes:
    changed = bytearray(data)
    for at, mask in flips:
        changed[at % len(data)] ^= mask
    return bytes(changed)


@settings(deadline=None, max_examples=300)
@given(flips=FLIPS, cut=st.integers(0, 3000))
def test_damaged_files_are_refused(sound, flips, cut):
    path = sound.with_name("damaged.pth")
    data = sound.read_bytes()
    for damaged in (flipped(data, flips), data[: cut % len(data)]):
        path.write_bytes(damaged)
        readable_or_refused(path)


@settings(deadline=None, max_examples=300)
@given(flips=FLIPS)
def test_damaged_pickles_are_refused(sound, flips):
    """With a checksum that fits, as no accident would leave it."""
    data = zipfile.ZipFile(sound).read("archive/data.pkl")
    path = sound.with_name("repacked.pth")
    readable_or_refused(rewritten(path, sound, {"data.pkl": flipped(data, flips)}))


@settings(deadline=None, max_examples=200)
@given(flips=FLIPS, cut=st.integers(0, 400))
def test_damaged_safetensors_are_refused(sound, flips, cut):
    save = pytest.importorskip("safetensors.numpy").save
    data, path = save(STATE), sound.with_name("damaged.safetensors")
    for damaged in (flipped(data, flips), data[: cut % len(data)]):
        path.write_bytes(damaged)
        readable_or_refused(path)

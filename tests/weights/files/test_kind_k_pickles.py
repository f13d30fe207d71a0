"""Kind K: pickles of a few bytes that would make millions of objects, or take hours."""

import pickle
import struct

import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files.torch_pickle import Stream, load


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(Stream, "left", 1000)


def test_what_is_in_a_frame_counts(few):
    inside = pickle.EMPTY_LIST * 5000
    frame = pickle.FRAME + struct.pack("<Q", len(inside) + 1) + inside + pickle.STOP
    with pytest.raises(InputError, match="too many objects"):
        load(Stream(pickle.PROTO + b"\x04" + frame))


@pytest.mark.parametrize(("opening", "end"), [(b"](", b"e"), (b"(", b"t")], ids=["list", "tuple"])
def test_what_is_gone_through_again_and_again_counts(opening, end, few):
    pairs = opening + b"".join(b"K%cK\0\x86" % (i % 256) for i in range(100)) + end
    call = b"ccollections\nOrderedDict\nh\0\x85Ra"
    data = b"\x80\x02]" + pairs + b"q\0a" + call * 50 + b"."
    with pytest.raises(InputError, match="too many objects"):
        load(Stream(data))


def test_an_ordinary_frame_is_read():
    assert load(Stream(pickle.dumps({"a": [1, 2, (3.5, "b")]}, 4)))[0] == {"a": [1, 2, (3.5, "b")]}

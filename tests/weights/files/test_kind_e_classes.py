"""Kind E: classes beside the tensors become nothing; what does something is refused by name."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import io
import os
import pathlib
import pickle
import shutil
import subprocess
import types
import uuid
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_states import behind, resnet

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights import spellings
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.published import RESNET

torch = pytest.importorskip("torch")
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


class Settings(dict):
    """A class that only the project of a file has."""


class Listed(list):
    pass


class Color(enum.Enum):
    RED = 1


class Trainer:
    def __init__(self):
        self.model, self.best = torch.nn.Linear(2, 2), {1, 2}


def a_function():
    raise AssertionError("it ran")


HARMLESS = [
    argparse.Namespace(lr=0.1, names=["a"], inner=argparse.Namespace(x=1)),
    types.SimpleNamespace(x=1),
    collections.Counter("hello"),
    collections.OrderedDict(a=1),
    collections.defaultdict(list, {"a": [1]}),
    collections.deque([1, 2]),
    datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
    datetime.timedelta(1),
    pathlib.PurePosixPath("/a/b"),
    decimal.Decimal("0.1"),
    uuid.UUID(int=7),
    np.float64(0.5),
    np.int64(3),
    np.bool_(True),
    np.dtype("float32"),
    np.arange(3),
    np.random.default_rng(0),
    {1, 2},
    frozenset("ab"),
    bytearray(b"abc"),
    range(3),
    slice(1, 2),
    1 + 2j,
    functools.partial(a_function, 1),
    Settings(a=1, b=Settings(c=2)),
    Listed([1, 2]),
    Color.RED,
    {Color.RED: 1, (1, 2): 3, b"x": 4},
    Trainer(),
    Trainer,
    a_function,
    torch.Size([1, 2]),
    torch.device("cpu"),
    torch.float16,
    torch.nn.Linear(2, 2),
    torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1),
    torch.strided,
]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", HARMLESS, ids=lambda value: type(value).__name__)
def test_harmless_classes_become_nothing(beside, zipped, protocol, tmp_path):
    content = {"state_dict": STATE, "beside": beside, "all": [beside, {"x": (beside,)}]}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save(content, tmp_path / "saved.pth", **options)
    state = torch_files.read(tmp_path / "saved.pth")
    assert {key: array.tolist() for key, array in state.items()} == {
        key: tensor.tolist() for key, tensor in STATE.items()
    }


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A training's checkpoint in both formats, as bytes: a ResNet, and all that is harmless."""
    state = behind("module.", {k: torch.from_numpy(v) for k, v in resnet().items()})
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    content = {"state_dict": state, "optimizer": moments, "beside": HARMLESS}
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pth"
    found = {}
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        found[zipped] = path.read_bytes()
        assert len(torch_files.read(path)) == len(spellings.read(path, RESNET).state) == len(state)
    return path, found


def with_pickle(archive: bytes, changed) -> bytes:
    """An archive whose pickle is changed, with a checksum that fits."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, changed(data) if name.endswith("data.pkl") else data)
    return target.getvalue()


@settings(deadline=None, max_examples=150)
@given(
    zipped=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), min_size=1),
    cut=st.integers(0, 3),
)
def test_damaged_checkpoints_are_read_or_refused_in_one_line(checkpoints, zipped, changes, cut):
    path, found = checkpoints

    def changed(data):
        for at, new in changes:
            at %= min(len(data), 9000)
            data = data[:at] + new + data[at + cut :]
        return data

    path.write_bytes(with_pickle(found[True], changed) if zipped else changed(found[False]))
    for reading in (torch_files.read, lambda path: spellings.read(path, RESNET).state):
        try:
            assert all(np.array(array).size == array.size for array in reading(path).values())
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


class Call:
    """Something that calls a function where pickle itself reads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (subprocess.Popen, (["touch", "{}"],), "subprocess.Popen"),
        (subprocess.check_call, (["touch", "{}"],), "subprocess.check_call"),
        (eval, ("open({!r}, 'w')",), "eval"),
        (exec, ("open({!r}, 'w')",), "exec"),
        (getattr, ({}, "clear"), "getattr"),
        (__import__, ("this",), "__import__"),
        (shutil.rmtree, ("{}",), "shutil.rmtree"),
        (pickle.loads, (b"N.",), "loads"),
        (np.load, ("{}",), "numpy"),
        (torch.load, ("{}",), "torch.serialization.load"),
        (a_function, (), "a_function"),
    ],
)
def test_functions_are_refused_by_name(function, arguments, name, zipped, tmp_path):
    marker = tmp_path / "ran"
    filled = tuple(x.format(str(marker)) if isinstance(x, str) else x for x in arguments)
    filled = tuple([y.format(marker) for y in x] if isinstance(x, list) else x for x in filled)
    content = {"state_dict": STATE, "beside": Call(function, *filled)}
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for reading in (torch_files.read, lambda path: spellings.read(path, RESNET)):
        with pytest.raises(InputError, match=f"evil.pth: refers to .*{name}") as caught:
            reading(path)
        assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear.*state_dict"),
        ({"model": torch.nn.Linear(2, 2), "epoch": 1}, r"among: model \(a torch.nn.modules.linear"),
        ({k: v.numpy() for k, v in STATE.items()}, "arrays of NumPy: save .*torch.from_numpy"),
        ([STATE], "no dictionary of tensors"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "no state dict"),
        ({"model": {3: torch.ones(1)}}, "no state dict|no name"),
        ({"state": {(1, 2): torch.ones(1)}}, "no state dict|no names"),
    ],
)
def test_what_is_no_state_dict_is_named(content, reason, tmp_path):
    torch.save(content, tmp_path / "saved.pth")
    for reading in (torch_files.read, lambda path: spellings.read(path, RESNET)):
        with pytest.raises(InputError, match=f"saved.pth: .*(?:{reason})") as caught:
            reading(tmp_path / "saved.pth")
        assert "\n" not in str(caught.value)

"""Reading and writing PyTorch files, with PyTorch as the judge."""

import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.files.torch_pickle import TYPES

torch = pytest.importorskip("torch")


def bits(array):
    """dtype, shape and bytes: equal bits, not equal values (NaN, -0.0)."""
    return array.dtype, array.shape, np.ascontiguousarray(array).tobytes()


def torch_bits(tensor):
    kind = next(kind for kind in TYPES if getattr(torch, kind.torch) == tensor.dtype)
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return kind.numpy, tuple(tensor.shape), flat.tobytes()


def random_tensor(kind, *shape):
    generator = torch.Generator().manual_seed(0)
    size = int(np.prod(shape)) * kind.numpy.itemsize
    high = 2 if kind.torch == "bool" else 256
    raw = torch.randint(0, high, (size,), dtype=torch.uint8, generator=generator)
    return raw.view(getattr(torch, kind.torch)).reshape(shape)


@pytest.fixture
def saved(tmp_path):
    """A function that saves an object and reads it back."""

    def read_back(value, **options):
        torch.save(value, tmp_path / "saved.pth", **options)
        return torch_files.read(tmp_path / "saved.pth")

    return read_back


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.torch)
def test_reads_every_type(kind, zipped, saved):
    state = {"plain": random_tensor(kind, 3, 4), "turned": random_tensor(kind, 5, 2).t()}
    arrays = saved(state, _use_new_zipfile_serialization=zipped)
    assert {key: bits(array) for key, array in arrays.items()} == {
        key: torch_bits(tensor) for key, tensor in state.items()
    }


def layouts():
    base = torch.arange(120, dtype=torch.float32)
    cube = base.reshape(2, 3, 4, 5)
    return {
        "contiguous": cube,
        "transposed": cube.permute(3, 1, 0, 2),
        "channels_last": cube.contiguous(memory_format=torch.channels_last),
        "sliced": cube[:, 1:, ::2, 1:4],
        "offset": base[17:29].reshape(3, 4),
        "expanded": base[5:8].expand(4, 3),
        "overlapping": base.unfold(0, 8, 2),
        "scalar": torch.tensor(2.5),
        "one": base[7:8],
        "empty": torch.zeros(0, 3),
        "empty_slice": base[9:9],
        "parameter": torch.nn.Parameter(base[:6].reshape(2, 3)),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_every_layout(zipped, saved):
    arrays = saved(layouts(), _use_new_zipfile_serialization=zipped)
    assert list(arrays) == list(layouts())
    for key, tensor in layouts().items():
        assert bits(arrays[key]) == torch_bits(tensor), key
    assert np.shares_memory(arrays["contiguous"], arrays["offset"])
    assert not arrays["contiguous"].flags.writeable


def test_reads_what_modules_save(saved):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model[0].weight.remark = "a parameter with a state"
    for protocol in (2, 3, 4, 5):
        arrays = saved(model.state_dict(keep_vars=True), pickle_protocol=protocol)
        expected = {key: torch_bits(tensor) for key, tensor in model.state_dict().items()}
        assert {key: bits(array) for key, array in arrays.items()} == expected


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"model": w},
        lambda w: {"epoch": 3, "state_dict": w, "best": 0.5},
        lambda w: {"student": w, "teacher": {"model": w}, "size": torch.Size([2, 3])},
        lambda w: {f"module.{key}": value for key, value in w.items()},
        lambda w: {"model": {f"module._orig_mod.{key}": value for key, value in w.items()}},
        lambda w: {**w, "epoch": 2**70, "names": ["a", (1, None, b"x")], "set": {1}, "z": 1j},
        lambda w: {"model": w, "best_acc1": torch.tensor(76.1), "epoch": 3},
        lambda w: {**w, "device": torch.device("cpu"), "type": torch.float16, "options": {"a": 1}},
    ],
)
def test_finds_the_state_dict(wrap, saved):
    state = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
    assert list(saved(wrap(state))) == ["a.weight", "b"]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: torch.ones(2), "holds no dictionary of tensors"),
        (lambda: {"epoch": 3, "lr": 0.1}, "holds no state dict, or several, among: epoch, lr"),
        (lambda: {"model": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}}, "or several"),
        (lambda: {"a": torch.ones(1), "b": {"c": torch.ones(1)}}, "b: is nested"),
        (lambda: {1: torch.ones(1)}, "1: is nested or no name"),
        (lambda: {(1, 2): torch.ones(1)}, "keys are no names"),
        (lambda: {"z": torch.ones(2, dtype=torch.complex64).conj()}, "z: is a conjugated"),
        (lambda: {"s": torch.eye(2).to_sparse()}, "refers to torch._utils._rebuild_sparse_tensor"),
        (lambda: {"h": torch.ones(1, dtype=torch.complex32)}, "refers to torch.complex32"),
        (lambda: torch.nn.Linear(2, 2), "but a pickled torch.nn.modules.linear.Linear; save"),
        (lambda: {"big": torch.ones(1).expand(1 << 25)}, "big: is expanded"),
    ],
)
def test_refuses_what_is_no_state_dict(value, reason, saved):
    with pytest.raises(InputError, match=f"saved.pth: .*{reason}") as caught:
        saved(value())
    assert "\n" not in str(caught.value)


def test_refuses_other_formats_with_advice(tmp_path):
    def reason(path):
        with pytest.raises(InputError) as caught:
            torch_files.read(path)
        return str(caught.value)

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    assert "tar archive" in reason(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither"),
        (b"epoch 1: loss 0.5\n" * 40, "neither"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged zip"),
        (struct.pack("<Q", 90) + b"{" + bytes(200), "not a valid safetensors"),
        (struct.pack("<Q", 20) + b'{"a":0,"a":0}       ', "not a valid safetensors"),
    ],
)
def test_refuses_foreign_files(content, reason, tmp_path):
    (tmp_path / "foreign.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"foreign.pth: .*{reason}"):
        torch_files.read(tmp_path / "foreign.pth")


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="folder"):
        torch_files.read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        torch_files.read(tmp_path / "missing.pth")


def test_reads_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    kinds = [kind for kind in TYPES if kind.safetensors and "fnuz" not in kind.torch]
    state = {f"module.{kind.torch}": random_tensor(kind, 3, 2) for kind in kinds}
    state |= {"module.scalar": torch.tensor(1.5), "module.empty": torch.zeros(0, 2)}
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    arrays = torch_files.read(tmp_path / "a.safetensors")
    expected = {key.removeprefix("module."): torch_bits(state[key]) for key in state}
    assert {key: bits(array) for key, array in arrays.items()} == expected


@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_torch_loads_what_is_written(options, tmp_path):
    tensors = {kind.torch: random_tensor(kind, 3, 2) for kind in TYPES}
    torch.save(tensors, tmp_path / "torch.pth")
    state = torch_files.read(tmp_path / "torch.pth")
    state |= {"empty": np.zeros((0, 3)), "scalar": np.float32(2), "ü.\ud800": np.zeros(1)}
    state |= {"turned": np.arange(6.0).reshape(2, 3).T, "swapped": np.arange(3, dtype=">i8")}
    torch_files.write(tmp_path / "ours.pth", state)
    loaded = torch.load(tmp_path / "ours.pth", weights_only=True, **options)
    assert type(loaded).__name__ == "OrderedDict" and list(loaded) == list(state)
    for key, tensor in loaded.items():
        assert tensor.is_contiguous() and tensor.data_ptr() % 16 == 0
        assert (
            torch_bits(tensor)[1:]
            == bits(state[key].astype(state[key].dtype.newbyteorder("<")))[1:]
        )
    assert zipfile.ZipFile(tmp_path / "ours.pth").testzip() is None


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(
        st.text(min_size=1),
        hnp.arrays(hnp.floating_dtypes() | hnp.integer_dtypes(), hnp.array_shapes(min_dims=0)),
        min_size=1,
    )
)
def test_reads_what_it_writes(folder, state):
    state = {f"k{key}": array for key, array in state.items() if array.dtype.itemsize < 16}
    state["k"] = np.zeros(2, np.float32)
    torch_files.write(folder / "a.pth", state)
    arrays = torch_files.read(folder / "a.pth")
    assert list(arrays) == list(state)
    for key, array in state.items():
        assert bits(arrays[key]) == bits(array.astype(array.dtype.newbyteorder("<")))


def test_writes_all_or_nothing(tmp_path):
    path = tmp_path / "a.pth"
    torch_files.write(path, {"a": np.ones(2, np.float32)})
    with pytest.raises(InputError, match="a.pth: b: PyTorch has no type"):
        torch_files.write(path, {"a": np.zeros(2, np.float32), "b": np.array(["text"])})

    class Interrupted:
        dtype, shape = np.dtype("f4"), (2,)

        def __array__(self, *arguments, **options):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torch_files.write(path, {"a": np.zeros(2, np.float32), "b": Interrupted()})
    with pytest.raises(InputError, match="nowhere/a.pth: cannot be written"):
        torch_files.write(tmp_path / "nowhere" / "a.pth", {"a": np.zeros(2)})
    assert torch_files.read(path)["a"].tolist() == [1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pth"]


def test_needs_neither_torch_nor_jax():
    code = "import sys, dinogrl_jax.weights.files.torch_files\n"
    code += "sys.exit(bool({'torch', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

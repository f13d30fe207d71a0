"""Archives of TorchScript: their tensors are read, nothing in them runs, all else is refused."""

import io
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.files.torch_pickle import Stream

torch = pytest.importorskip("torch")
pytestmark = [  # which torch.jit gives, and its files stay
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc, self.norm = torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)
        self.scale = 3  # plain values are attributes too

    def forward(self, x):
        return self.norm(self.c_fc(x)) * self.scale


class Toy(torch.nn.Module):
    """What CLIP has: parameters beside modules, a sequence of blocks, attention, a number."""

    def __init__(self):
        super().__init__()
        self.class_embedding = torch.nn.Parameter(torch.randn(3))
        self.resblocks = torch.nn.Sequential(Inner(), torch.nn.Linear(4, 3), Inner())
        self.attn = torch.nn.MultiheadAttention(4, 2)
        self.register_buffer("input_resolution", torch.tensor(224))
        self.visual = Inner()

    def forward(self, x):
        y = self.resblocks(x + self.class_embedding) + self.visual(x)
        return self.attn(y, y, y)[0]


def archive(path, kind, dtype=torch.float32):
    torch.manual_seed(0)
    toy = Toy().to(dtype).eval()
    example = torch.randn(5, 3, dtype=dtype)
    made = torch.jit.script(toy) if kind == "script" else torch.jit.trace(toy, example)
    torch.jit.save(made, str(path))
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("files") / "toy.pt", "script")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", ["script", "trace"])
def test_tensors_are_those_of_the_module_in_their_order(kind, dtype, tmp_path):
    path = archive(tmp_path / "toy.pt", kind, dtype)
    found, expected = torch_files.read(path), torch.jit.load(str(path)).state_dict()
    assert list(found) == list(expected) and len(found) == 20
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[key], tensor.numpy())


def rewritten(path, sound, changes):
    """A sound archive with other contents of some records; None leaves one out."""
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            name = entry.filename.partition("/")[2]
            content = changes.get(name, source.read(entry))
            if content is not None:
                compression = zipfile.ZIP_DEFLATED if name.startswith("code/") else None
                target.writestr(entry.filename, content, compression)
    return path


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        torch_files.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def refusal_of_pickle(data, sound, tmp_path) -> str:
    return refusal(rewritten(tmp_path / "evil.pt", sound, {"data.pkl": data}))


P = b"\x80\x02"
CLASS = b"c__torch__.toy\nToy\n"
MODULE = CLASS + b")\x81"


def text(name: str) -> bytes:
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def nested(depth: int) -> bytes:
    """A module in a module, and so on."""
    return (MODULE + b"}" + text("m")) * depth + MODULE + b"}b" + b"sb" * depth


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
    + text("0") + text("cpu") + b"K\x03tQK\x00K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)  # fmt: skip


def with_tensor(name: str) -> bytes:
    return MODULE + b"}" + text(name) + TENSOR + b"sb"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\n)\x81}b.", "refers to os.system, which is not read of TorchScript"),
        (b"cos\nsystem\n" + text("true") + b"\x85R.", "refers to os.system"),
        (b"cbuiltins\nset\n]\x85R.", "refers to builtins.set"),  # harmless in a checkpoint
        (b"ctorch.nn.modules.linear\nLinear\n)\x81}b.", "refers to torch.nn.modules.linear.Linear"),
        (
            b"ctorch.jit._pickle\nbuild_intlist\n]\x85R.",
            r"refers to torch.jit._pickle.build_intlist, .*: save its weights alone, torch.save\(",
        ),
        (b"c__torch__.\x1b[2J\nX\n)R.", r"calls __torch__.\\x1b\[2J.X, which is no function"),
        (CLASS + b")R.", "calls __torch__.toy.Toy, which is no function"),
        (b"ccollections\nOrderedDict\n)\x81.", "makes an object of collections.OrderedDict"),
        (b"ctorch\nfloat32\n)\x81.", "makes an object of torch.Float"),
        (b"})\x81.", "makes an object of dict"),
        (CLASS + b"K\x01\x85\x81.", "makes __torch__.toy.Toy with arguments"),
        (CLASS + b")}\x92.", "makes an object of __torch__.toy.Toy"),  # NEWOBJ_EX
        (MODULE + b"]b.", "gives attributes to __torch__.toy.Toy as a list"),
        (MODULE + b"}\x86b.", "damaged"),
        (MODULE + MODULE + b"}b" + b"b.", "to __torch__.toy.Toy as a Module"),
        (
            MODULE + b"}" + text("a") + b"K\x01sb}b.",
            "to __torch__.toy.Toy twice",
        ),
        (CLASS + b"}b.", "gives attributes to __torch__.toy.Toy, which"),
        (b"}}b.", "gives attributes to dict"),
        (TENSOR + b"}b.", "gives attributes to Tensor"),
        (b"}.", "is TorchScript, and holds no module"),
        (b"}" + text("model") + with_tensor("a") + b"s.", "is TorchScript, and holds no module"),
        (MODULE + b"q\x00}" + text("own") + b"h\x00sb.", "own: is a module that holds itself"),
        (
            MODULE + b"q\x00}" + text("a") + MODULE + b"}" + text("b") + b"h\x00sbsb.",
            "a.b: is a module that holds itself",
        ),
        (nested(60) + b".", "m: is a module in more than 50 others"),
        (MODULE + b"}" + text("n" * 600) + TENSOR + b"sb.", "is too long a name"),
        (
            MODULE + b"}(" + text("a.b") + TENSOR + text("a") + with_tensor("b") + b"ub.",
            "a.b: is there twice",
        ),
        (MODULE + b"}(" + text("a") + b"K\x01" + text("a") + b"K\x02ub.", "a: is there twice"),
        (with_tensor("x").replace(text("0"), text("99")) + b".", "x: has no record data/99"),
        (with_tensor("x").replace(b"K\x03\x85", b"K\x09\x85") + b".", "x: needs 36 bytes"),
        (with_tensor("x").replace(b"K\x03tQ", b"K\x09tQ") + b".", "x: declares a storage of 36"),
        (MODULE + b".", "holds no tensors"),
        (MODULE, "damaged"),
        (b"\x81.", "damaged"),
        (b"b.", "damaged"),
    ],
)
def test_hostile_modules(data, reason, sound, tmp_path):
    assert re.search(reason, refusal_of_pickle(P + data, sound, tmp_path))


def test_modules_that_are_many_by_sharing_are_refused_at_once(sound, tmp_path):
    """Each of 40 modules holds the next twice: a few bytes would be 2^40 modules."""
    data = P + MODULE + b"}b"
    for i in range(40):  # what is on the stack stays there below
        of_it = b"h" + bytes([i])
        data += b"q" + bytes([i]) + MODULE + b"}(" + text("a") + of_it + text("b") + of_it + b"ub"
    assert "is one of more than 10,000" in refusal_of_pickle(data + b".", sound, tmp_path)


def test_attributes_that_modules_share_are_counted_for_each(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(Stream, "left", 10_000)
    shared = b"}(" + b"".join(text(str(i)) + b"K\x01" for i in range(200)) + b"uq\x00"
    data = P + shared + (MODULE + b"h\x00b") * 100 + with_tensor("x") + b"."
    assert "holds too many objects" in refusal_of_pickle(data, sound, tmp_path)


def test_attributes_without_weights_are_left_out(sound, tmp_path):
    plain = text("a") + b"K\x01" + text("b") + b"]" + text("x") + TENSOR
    data = P + MODULE + b"}(" + plain + b"ub."
    assert list(torch_files.read(rewritten(tmp_path / "plain.pt", sound, {"data.pkl": data}))) == [
        "x"
    ]


def test_a_module_in_two_places_has_both_names(sound, tmp_path):
    data = P + MODULE + b"}(" + text("a") + with_tensor("x") + b"q\x00" + text("b") + b"h\x00ub."
    found = torch_files.read(rewritten(tmp_path / "shared.pt", sound, {"data.pkl": data}))
    assert list(found) == ["a.x", "b.x"] and np.shares_memory(found["a.x"], found["b.x"])


def test_code_is_not_looked_at(sound, tmp_path):
    names = [name.partition("/")[2] for name in zipfile.ZipFile(sound).namelist()]
    code = {name: b"import os; os.abort()" for name in names if name.startswith("code/")}
    found = torch_files.read(rewritten(tmp_path / "other.pt", sound, code))
    assert list(found) == list(torch_files.read(sound))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data.pkl": None}, "no data.pkl"),
        ({"data/0": None}, "has no record data/0"),
        ({"data/0": b"abc"}, "declares a storage"),
        ({"byteorder": b"big"}, "not little-endian"),
        ({"data.pkl": P + b"N" * (1 << 24) + b"."}, "data.pkl has"),
    ],
)
def test_hostile_records(changes, reason, sound, tmp_path):
    assert reason in refusal(rewritten(tmp_path / "evil.pt", sound, changes))


def test_compressed_weights_are_refused(sound, tmp_path):
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert "is compressed" in refusal(path)


def test_an_ordinary_file_makes_no_modules(tmp_path):
    """Outside TorchScript the same opcodes leave nothing behind."""
    plain = tmp_path / "plain.pth"
    torch_files.write(plain, {"0": np.ones(3, np.float32)})
    target = io.BytesIO()
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = P + with_tensor("x") + b"." if name.endswith("data.pkl") else old.read(name)
            new.writestr(name, data)
    plain.write_bytes(target.getvalue())
    assert "but a pickled __torch__.toy.Toy" in refusal(plain)


def readable_or_refused(path):
    try:
        state = torch_files.read(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.array(array).size == array.size for array in state.values())


FLIPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4)
OPCODES = [b")\x81", b"}b", b"b", b"R", b"h\x00", b"0", b"s", b"u", CLASS, MODULE, TENSOR]
PIECES = st.lists(st.sampled_from(OPCODES))


def flipped(data: bytes, flips) -> bytes:
    made = bytearray(data)
    for at, mask in flips:
        made[at % len(made)] ^= mask
    return bytes(made)


@settings(deadline=None, max_examples=150)
@given(flips=FLIPS, cut=st.integers(0, 20_000))
def test_damaged_archives_are_refused(sound, flips, cut):
    path, data = sound.with_name("damaged.pt"), sound.read_bytes()
    for damaged in (flipped(data, flips), data[: cut % len(data)]):
        path.write_bytes(damaged)
        readable_or_refused(path)


@settings(deadline=None, max_examples=150)
@given(flips=FLIPS, pieces=PIECES, at=st.integers(0, 10**6))
def test_damaged_modules_are_refused(sound, flips, pieces, at):
    """With a checksum that fits: bytes changed, and opcodes that make modules put in."""
    with zipfile.ZipFile(sound) as archive:
        data = archive.read(next(x for x in archive.namelist() if x.endswith("data.pkl")))
    at %= len(data)
    for changed in (flipped(data, flips), data[:at] + b"".join(pieces) + data[at:]):
        readable_or_refused(rewritten(sound.with_name("repacked.pt"), sound, {"data.pkl": changed}))


def test_pickle_itself_is_not_asked(sound, monkeypatch):
    def no(*_, **__):
        raise AssertionError("pickle read a file")

    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, no)
    assert torch_files.read(sound)

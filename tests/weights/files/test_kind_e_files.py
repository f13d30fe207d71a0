"""Kind E: folders of weights, other formats, files of something else, and limits."""

import gzip
import json
import os
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
from small_states import behind, dinov2, resnet

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights import foreign, spellings
from dinogrl_jax.weights.files import folders, torch_files
from dinogrl_jax.weights.published import RESNET, dinov2_rules

torch = pytest.importorskip("torch")
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def legacy(tmp_path) -> bytes:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    return (tmp_path / "old.pth").read_bytes()


def test_damaged_files_of_the_format_before_1_6(tmp_path):
    data, path = legacy(tmp_path), tmp_path / "damaged.pth"
    refused = 0
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="damaged.pth: "):
            torch_files.read(path)
    for at in range(32, len(data), 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            torch_files.read(path)
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 20
    other = re.sub(rb"(little_endianq.)\x88", lambda it: it[1] + b"\x89", data, flags=re.DOTALL)
    assert other != data
    path.write_bytes(other)
    with pytest.raises(InputError, match="not little-endian"):
        torch_files.read(path)


def numbers(state: dict) -> dict:
    return {key: torch.from_numpy(value) for key, value in state.items()}


@pytest.fixture
def folder(tmp_path):
    """A folder of the Hub in two shards: an index, a configuration, and what else is there."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    state, folder = numbers(dinov2()), tmp_path / "dinov2"
    folder.mkdir()
    keys = list(state)
    shards = {"model-00001-of-00002.safetensors": keys[:9]}
    shards["model-00002-of-00002.safetensors"] = keys[9:]
    for name, part in shards.items():
        save_file({key: state[key] for key in part}, folder / name)
    places = {key: name for name, part in shards.items() for key in part}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "dinov2"}')
    (folder / "README.md").write_text("a model")
    return folder


def assert_dinov2(path):
    state, beside = spellings.read(path, dinov2_rules(4))
    assert state.keys() == dinov2().keys() and not beside
    for key, value in dinov2().items():
        np.testing.assert_array_equal(state[key], value)


def test_folders_and_indexes_of_safetensors(folder):
    assert_dinov2(folder)
    assert_dinov2(folder / "model.safetensors.index.json")


def test_files_whose_content_counts(folder, tmp_path):
    names = ["model.safetensors.index.json", FIRST, SECOND]
    assert folders.files_of_weights(folder) == [folder / name for name in names]
    assert folders.files_of_weights(folder / names[0]) == [folder / name for name in names]
    assert folders.files_of_weights(folder / FIRST) == [folder / FIRST]
    with pytest.raises(InputError, match="is a folder without weights"):
        folders.files_of_weights(tmp_path)


def test_one_file_in_a_folder_whatever_its_name(tmp_path):
    for name in ("model.safetensors", "pytorch_model.bin", "dinov2_vits14_pretrain.pth"):
        place = tmp_path / name.replace(".", "_")
        place.mkdir()
        if name.endswith("safetensors"):
            pytest.importorskip("safetensors.torch").save_file(numbers(dinov2()), place / name)
        else:
            torch.save(numbers(dinov2()), place / name)
        (place / "config.json").write_text("{}")
        assert_dinov2(place)


def test_shards_of_pytorch_and_the_cache_of_the_hub(tmp_path):
    state = numbers(dinov2())
    place = tmp_path / "models--me--dinov2" / "snapshots" / "0a1b"
    blobs = tmp_path / "models--me--dinov2" / "blobs"
    place.mkdir(parents=True)
    blobs.mkdir()
    places = {}
    for number, keys in enumerate((list(state)[:5], list(state)[5:])):
        torch.save({key: state[key] for key in keys}, blobs / str(number))
        name = f"pytorch_model-{number}.bin"
        (place / name).symlink_to(blobs / str(number))
        places |= dict.fromkeys(keys, name)
    (place / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert_dinov2(place)
    assert_dinov2(tmp_path / "models--me--dinov2")


def changed_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    path.write_text(change(index) or json.dumps(index))


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / SECOND).unlink(), f"1 of its 2 files are missing: download {SECOND}"),
        (lambda f: (f / SECOND).write_bytes(b"x" * 50), f"{SECOND}: is neither"),
        (lambda f: shutil.copy(f / FIRST, f / SECOND), f"{SECOND}: lacks .* the index promises"),
        (lambda f: changed_index(f, lambda i: "[" * 100_000), "no index of weights"),
        (lambda f: changed_index(f, lambda i: "[]"), "no index of weights"),
        (lambda f: changed_index(f, lambda i: '{"weight_map": {"a": 1}}'), "not text"),
        (lambda f: changed_index(f, lambda i: '{"weight_map": {"a": "b"}}'), "files are missing"),
        (
            lambda f: changed_index(f, lambda i: i["weight_map"].update(a="../old.pth")),
            "lists ../old.pth, which is no file beside it",
        ),
        (
            lambda f: changed_index(
                f, lambda i: i["weight_map"].update(a="model.safetensors.index.json")
            ),
            "no file beside it",
        ),
        (
            lambda f: [shutil.copy(f / FIRST, f / "3.bin"),
                       changed_index(f, lambda i: i["weight_map"].update(cls_token="3.bin"))],
            "lacks cls_token|has .*, as another file has",
        ),
    ],
)  # fmt: skip
def test_damaged_folders_are_refused_in_one_line(damage, reason, folder):
    damage(folder)
    with pytest.raises(
        InputError, match=f"^{folder}: model.safetensors.index.json: .*(?:{reason})"
    ):
        spellings.read(folder, dinov2_rules(4))


def test_folders_without_weights_and_with_several(tmp_path):
    with pytest.raises(InputError, match="is a folder, not a file, and has none of model.safeten"):
        torch_files.read(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save(STATE, tmp_path / name)
    with pytest.raises(InputError, match="several files of weights: name one of a.pth, b.pth"):
        torch_files.read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes((tmp_path / "a.pth").read_bytes())
    assert list(torch_files.read(tmp_path)) == list(STATE)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match="is no file"):
        torch_files.read(tmp_path / "pipe.pth")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 88283115\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (POINTER.encode(), "is a git-LFS pointer to 88283115 bytes"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", r"is a web page \(Sign in\)"),
        (b"\n <html lang='en'>" + b"x" * 9000, "is a web page, not the weights"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "is an XML answer of a server"),
        (b'{"error": "Repository not found"}', "is JSON"),
        (gzip.compress(b"weights", mtime=0), "is compressed: unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is HDF5"),
        (b"\x93NUMPY\x01\x00" + bytes(50), "is an array of NumPy"),
        (pickle.dumps({"a": 1}, 4), "is a pickle that torch.save did not write"),
        (b"\x08\x07\x12\x07pytorch\x1a\x032.1" + bytes(50), "is ONNX"),
    ],
)
def test_files_of_something_else_are_named(content, reason, tmp_path):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"model.pth: {reason}") as caught:
        torch_files.read(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)


def test_other_zip_archives_are_named(tmp_path):
    np.savez(tmp_path / "model.npz", a=np.ones(2))
    with pytest.raises(InputError, match="torch.save did not write .NumPy's npz"):
        torch_files.read(tmp_path / "model.npz")
    with zipfile.ZipFile(tmp_path / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", "text")
        archive.writestr("weights/best.pth", bytes(10))
    with pytest.raises(InputError, match="unpack it: it holds weights/best.pth"):
        torch_files.read(tmp_path / "download.zip")


@pytest.mark.parametrize(
    ("names", "owner"),
    [
        (behind("model.", resnet()), "ResNet-50"),
        (dinov2(), "DINOv2"),
        (["visual.transformer.resblocks.0.ln_1.weight", "visual.conv1.weight"], "OpenAI's CLIP"),
        (["layer1.0.bn1.IN.weight", "layer1.0.conv3.weight"], "ResNet-IBN"),
        (["layer1.0.conv1.weight", "layer1.0.conv2.weight"], "ResNet-18"),
        (["embeddings.register_tokens", "layer.0.attention.q_proj.weight"], "DINOv3"),
        (["blocks.0.attn.qkv.weight", "head.weight"], "a vision transformer"),
        (["vit.encoder.layer.0.attention.attention.query.weight"], "Hugging Face"),
        (["something.of.nobody"], None),
    ],
)
def test_whose_names_they_are(names, owner):
    found = foreign.owner_of(names)
    assert found is None if owner is None else owner in found


def test_names_and_numbers_of_tensors_have_limits(tmp_path):
    """A prefix a thousand times; a long name around many; dictionaries that hold each other."""
    one, path = torch.ones(1), tmp_path / "many.pth"
    torch.save({"module." * 1000 + "a": one, "module." * 1000 + "b": one}, path)
    assert list(torch_files.read(path)) == ["a", "b"]
    assert list(spellings.read(path, RESNET).state) == ["a", "b"]
    torch.save({"model." * 1000 + "a": one}, path)
    assert list(torch_files.read(path)) == ["model." * 1000 + "a"]
    torch.save({"x" * 100_000: {f"{n}": one for n in range(1000)}}, path)
    with pytest.raises(InputError, match="xxx: is too long a name"):
        spellings.read(path, RESNET)
    torch.save({"m": {f"{n}": one for n in range(10_001)}}, path)
    with pytest.raises(InputError, match="one of more than 10,000 tensors"):
        spellings.read(path, RESNET)
    level = {"conv1.weight": one}
    for _ in range(6):
        level = {str(n): level for n in range(50)}
    level["level"] = level
    torch.save({"a": level}, path)
    assert list(spellings.read(path, RESNET).state) == ["a.0.0.0.0.0.0.conv1.weight"]


def test_expanded_pieces_are_not_copied(tmp_path):
    """Fifty blocks in a file of 100 kB would take 9 GiB as q, k and v in one array."""
    wide = torch.ones(1).expand(4096, 4096)
    names = (f"encoder.layer.{i}.attention.attention.{x}.weight" for i in range(50) for x in
             ("query", "key", "value"))  # fmt: skip
    state = dict.fromkeys(names, wide) | {
        "embeddings.patch_embeddings.projection.weight": torch.ones(1, 3, 2, 2)
    }
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(InputError, match="has tensors that are expanded"):
        spellings.read(tmp_path / "wide.pth", dinov2_rules(4096))

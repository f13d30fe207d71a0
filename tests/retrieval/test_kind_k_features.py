"""Damaged and hostile files of features end in one line, and take no more than they hold."""

import io
import os
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from dinogrl_jax.interface import arrays
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file

TRIES = 400


def columns(n=12):
    rng = np.random.default_rng(0)
    return {
        "embedding": rng.standard_normal((n, 4)).astype(np.float32),
        "identity": np.arange(n) % 4,
        "camera": np.arange(n) % 3,
        "modality": np.array(["visible", "infrared"] * (n // 2)),
        "path": np.array([f"p{i}" for i in range(n)]),
    }


def with_array(folder, name, content, shape=None, dtype=None, method=zipfile.ZIP_DEFLATED):
    """The path of a file in which one array has another content, or says so of itself."""
    path = folder / "f.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, array in columns().items():
            if key != name:
                file = io.BytesIO()
                np.save(file, array)
                archive.writestr(f"{key}.npy", file.getvalue())
        header = io.BytesIO()
        facts = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        archive.writestr(f"{name}.npy", header.getvalue() + content)
    return str(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_bit_that_flips_is_one_line_or_harmless(save, tmp_path):
    path, rng, refused = tmp_path / "f.npz", random.Random(0), 0
    save(path, **columns())
    whole = path.read_bytes()
    for _ in range(TRIES):
        bad = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(bad))
            if rng.random() < 0.8:
                bad[at] ^= 1 << rng.randrange(8)
            else:
                del bad[at : at + rng.randrange(1, 200)]
        path.write_bytes(bad)
        try:
            feature_file.read_features(str(path))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert refused > TRIES // 3


def test_arrays_are_those_of_numpy(tmp_path):
    """Of either order of memory, either order of bytes, and larger than what is read at once."""
    embedding = np.random.default_rng(0).standard_normal((2000, 3, 40))
    n = len(embedding)
    others = {"identity": np.arange(n), "modality": np.array(["visible"] * n)}
    for made in (embedding, np.asfortranarray(embedding), embedding.astype(">f4")):
        np.savez_compressed(tmp_path / "f.npz", embedding=made, **others)
        found = feature_file.read_features(str(tmp_path / "f.npz"))
        np.testing.assert_array_equal(found.embedding, made)


def test_an_array_that_nobody_reads_is_not_inflated(tmp_path):
    size = 256 << 20
    path = with_array(tmp_path, "nobody", bytes(size), (size,), "|u1")
    assert os.path.getsize(path) < 1 << 20
    tracemalloc.start()
    feature_file.read_features(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


BOMBS = {
    "identity has texts of more than 200 letters": ("identity", b"", (12,), "<U2000000"),
    "path has texts of more than 4096 letters": ("path", b"", (12,), "<U5000"),
    "embedding would take 12288.0 GiB": ("embedding", b"", (12, 1 << 38), "<f4"),
    r"embedding has shape \(12, 1, 1, 4\)": ("embedding", bytes(192), (12, 1, 1, 4), "<f4"),
    "embedding is damaged .its size is not what it says": ("embedding", bytes(9), (12, 4), "<f4"),
    "embedding is complex64: save numbers": ("embedding", bytes(384), (12, 4), "<c8"),
    "identity is datetime64": ("identity", bytes(96), (12,), "<M8[s]"),
    "modality is int64: save text": ("modality", bytes(96), (12,), "<i8"),
    "camera holds Python objects": ("camera", b"", (12,), "|O"),
}


@pytest.mark.parametrize("words", BOMBS)
def test_what_an_array_says_is_looked_at_before_it_is_read(words, tmp_path):
    with pytest.raises(InputError, match=words):
        feature_file.read_features(with_array(tmp_path, *BOMBS[words]))


def test_what_compresses_too_well_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "UNSUSPICIOUS", 1 << 16)
    path = with_array(tmp_path, "embedding", bytes(12 << 18), (12, 1 << 16), "<f4")
    with pytest.raises(InputError, match="embedding would take"):
        feature_file.read_features(path)


def test_an_array_twice_and_other_ways_of_compression(tmp_path):
    content = np.zeros((12, 4), np.float32).tobytes()
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED):
        path = with_array(tmp_path, "embedding", content, (12, 4), "<f4", method)
        assert not feature_file.read_features(path).embedding.any()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("embedding.npy", b"")
    with pytest.raises(InputError, match="holds an array twice"):
        feature_file.read_features(path)


def test_what_is_no_file_of_features_is_named(tmp_path):
    path = tmp_path / "f.npz"
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a FIFO, not a file"):
        feature_file.read_features(str(path))
    path.unlink()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="it is no .npz but a pointer of Git LFS"):
        feature_file.read_features(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match="it is no .npz but empty"):
        feature_file.read_features(str(path))


class Counted(np.ndarray):
    """An embedding that counts how often its rows are taken."""

    taken = 0

    def __getitem__(self, key):
        Counted.taken += 1
        return super().__getitem__(key)


def test_equal_distractors_are_compared_once_each():
    n = 3000
    embedding = np.zeros((n, 1, 2), np.float32)
    embedding[:, 0, 1] = np.arange(n)  # the first channel is equal
    known = {name: np.full(n, "") for name in ("names", "path")}
    rows = np.arange(n)
    features = feature_file.Features(
        embedding.view(Counted),
        rows,
        camera=None,
        modality=np.full(n, "visible"),
        role=np.full(n, "gallery"),
        halves=None,
        **known,
    )
    Counted.taken = 0
    feature_file._check_duplicates(features)
    assert n <= Counted.taken <= 3 * n


def test_zero_and_minus_zero_are_the_same_descriptor(tmp_path):
    made = columns()
    made["embedding"][1], made["embedding"][9] = 0.0, -0.0
    for name in ("identity", "camera", "modality", "path"):
        made[name][9] = made[name][1]
    np.savez(tmp_path / "f.npz", **made)
    with pytest.raises(InputError, match=r"tracklets 1 and 9 \('p1'\) are the same"):
        feature_file.read_features(str(tmp_path / "f.npz"))

"""Queries that the server remembers, and what it calls files."""

import io

import numpy as np
import pytest
from PIL import Image

from dinogrl_jax.retrieval.server.queries import Query, Recent, kept_frames, query_key
from dinogrl_jax.retrieval.server.service import shown_name


def query(key: str, pixels: int = 100) -> Query:
    return Query(key, "visible", np.zeros((1, 1), np.float32), (np.zeros((1, pixels), np.uint8),))


def test_the_last_ones_are_remembered():
    recent = Recent(most=300)
    for key in ("a", "b"):
        recent.put(query(key))
    assert recent.get("a").key == "a"
    recent.put(query("c"))  # "b" is the one that nobody has asked for the longest
    assert [recent.get(x) is None for x in "abc"] == [False, True, False]
    recent.put(query("huge", 1000))
    assert [recent.get(x) is None for x in ("a", "c", "huge")] == [True, True, False]
    recent.put(query("d"))
    assert recent.get("huge") is None and recent.get("d")


def test_a_key_is_of_pixels_shapes_order_and_modality():
    a, b = np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8)
    keys = {
        query_key(*x)
        for x in (
            ([a, b], "visible"), ([b, a], "visible"), ([a, b], "infrared"), ([a], "visible"),
            ([a.reshape(3, 2, 3), b], "visible"), ([a[..., 0], b], "visible"),
        )
    }  # fmt: skip
    assert len(keys) == 6 and query_key([a.copy(), b], "visible") in keys


def test_frames_are_kept_without_a_loss():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in range(100)]
    pictures.append(rng.integers(0, 256, (4, 5), np.uint8))
    assert [len(kept_frames(pictures[:n])) for n in (1, 32, 33, 101)] == [1, 32, 32, 32]
    kept = Query("x", "visible", np.zeros((1, 1), np.float32), kept_frames(pictures[-2:]))
    for png, picture in zip(kept.pngs(), pictures[-2:], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), picture)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\fakepath\\a.png", "a.png"),
        ("", "file 3"),
        ("a/", "file 3"),
        ("x" * 99, "x" * 80),
        ("\x1b[2Ja\n", "\\x1b[2Ja\\n"),
    ],
)
def test_what_a_file_is_called(name, shown):
    assert shown_name(name, 3) == shown

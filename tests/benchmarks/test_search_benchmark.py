"""The benchmark of the search, in very small."""

import sys

import numpy as np
import search


def test_its_tables(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(search, "BATCH", 600)
    rng = np.random.default_rng(0)
    identity = np.arange(40) % 8
    embedding = rng.standard_normal((8, 3, 32))[identity] + 0.3 * rng.standard_normal((40, 3, 32))
    np.savez(tmp_path / "f.npz", embedding=embedding.astype(np.float32), identity=identity)
    words = ["--descriptors", tmp_path / "f.npz", "--count", 2400, "--queries", 2]
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, words), "--folder", str(tmp_path)])
    search.main()
    output = capsys.readouterr().out
    rows = [
        line for line in output.splitlines() if line.startswith(("| 600 ", "| 1,200 ", "| 2,4"))
    ]
    assert len(rows) == 3 and all(row.endswith("| 100 % |") for row in rows), output
    assert "1,000,000 by a line" in output and "peak memory" in output
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_people_are_mixed_alike(tmp_path):
    """A place has the same identity whoever asks, and variances are those of the file."""
    rng = np.random.default_rng(0)
    identity = np.arange(400) % 40
    centres = 3 * rng.standard_normal((40, 2, 4))
    embedding = (centres[identity] + rng.standard_normal((400, 2, 4))).astype(np.float32)
    np.savez(tmp_path / "f.npz", embedding=embedding, identity=identity)
    mixed = search.Mixed(str(tmp_path / "f.npz"))
    rows = mixed.rows(np.arange(2400), 2)
    np.testing.assert_array_equal(mixed.rows(np.arange(5, 9), 2), rows[5:9])
    own = rows[0] - rows[1 : search.EACH]
    other = rows[0] - rows[search.EACH :]
    assert np.square(own).mean() < np.square(other).mean() / 3
    # of 200 people from 40, so that variances of a coordinate differ by their sampling
    np.testing.assert_allclose(rows.var(0).sum(), embedding.var(0).sum(), rtol=0.25)

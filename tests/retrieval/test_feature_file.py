"""The .npz of anyone's descriptors, and what is refused."""

import numpy as np
import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file


def arrays(n=12, **changed):
    rng = np.random.default_rng(0)
    return {
        "embedding": rng.standard_normal((n, 3, 4)).astype(np.float32),
        "identity": np.arange(n) % 4,
        "camera": np.arange(n) % 3,
        "modality": np.array(["visible", "infrared"] * (n // 2)),
    } | changed


def saved(folder, without=(), **changed):
    path = folder / "features.npz"
    kept = {k: v for k, v in arrays(**changed).items() if k not in without}
    np.savez(path, **kept)
    return str(path)


def test_what_is_optional(tmp_path):
    features = feature_file.read_features(saved(tmp_path, without=("camera",)))
    assert features.camera is None and features.halves is None
    assert set(features.role) == {"both"} and set(features.path) == {""}
    np.testing.assert_array_equal(features.embedding, arrays()["embedding"])
    assert list(features.label_columns) == ["identity", "camera", "modality", "role"]


@pytest.mark.parametrize(
    "identity",
    [
        np.array([7, -1, 7, -1]),
        np.array([7.0, np.nan, 7.0, -1.0]),
        np.array(["7", "", "7", "-1"]),
        np.array([b"7", b"", b"7", b"-1"]),
    ],
)
def test_unknown_identities_match_nobody(identity, tmp_path):
    embedding = np.eye(4, dtype=np.float32)
    modality = np.array([b"visible", b"infrared"] * 2)
    path = saved(tmp_path, ("camera",), embedding=embedding, identity=identity, modality=modality)
    features = feature_file.read_features(path)
    assert features.names.tolist() == ["7", "", "7", ""]
    assert features.identity[0] == features.identity[2]
    assert len(set(features.identity.tolist())) == 3
    assert features.modality.tolist() == ["visible", "infrared"] * 2


@pytest.mark.parametrize("distance", [np.array("dot"), np.array(b"dot")])
def test_the_distance_of_its_method(distance, tmp_path):
    assert feature_file.read_features(saved(tmp_path)).distance == "part_euclidean"
    assert feature_file.read_features(saved(tmp_path, distance=distance)).distance == "dot"


@pytest.mark.parametrize(
    ("distance", "reason"),
    [("manhattan", "choose one of part_"), (["dot"] * 12, "one text"), (3, "distance")],
)
def test_another_distance_is_refused(distance, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        feature_file.read_features(saved(tmp_path, distance=np.array(distance)))


def test_halves(tmp_path):
    half = arrays()["embedding"] + 1
    features = feature_file.read_features(
        saved(tmp_path, embedding_first=half, embedding_second=half)
    )
    np.testing.assert_array_equal(features.halves[1], half)


def with_(rows, value):
    embedding = arrays()["embedding"]
    embedding[rows] = value
    return embedding


def twins(**changed):
    columns = arrays(**changed)
    for name in columns:
        columns[name][9] = columns[name][1]
    return columns


RAGGED = np.array([np.zeros(3), np.zeros(4)] * 6, object)
BAD = {
    "no array 'identity'; there is embedding, camera": {"without": ("identity",)},
    "has no array 'embedding'": {"without": ("embedding",)},
    r"embedding is int64 of shape \(12, 2\)": {"embedding": np.zeros((12, 2), int)},
    r"of shape \(12,\)": {"embedding": np.zeros(12)},
    r"of shape \(0, 3, 4\)": {"n": 0},
    "embedding holds Python objects, as rows of different widths": {"embedding": RAGGED},
    "identity has shape": {"identity": np.zeros(5)},
    "camera has shape": {"camera": np.zeros(5)},
    "role has shape": {"role": np.array(["both"])},
    "camera holds Python objects": {"camera": np.array([1, None] * 6, object)},
    "tracklet 3, and 2 more tracklets has NaN": {"embedding": with_([3, 5, 7], np.nan)},
    r"tracklet 4 \('p4'\) has NaN or inf": {
        "embedding": with_([4], np.inf),
        "path": np.array([f"p{i}" for i in range(12)]),
    },
    "embedding_second of tracklet 2 has NaN": {
        "embedding_first": with_([], 0),
        "embedding_second": with_([2], np.nan),
    },
    "embedding_first and embedding_second have to be there both": {"embedding_first": with_([], 0)},
    "both, shaped": {"embedding_first": with_([], 0), "embedding_second": np.zeros((12, 2))},
    "tracklets 1 and 9 are the same": twins(),
    r"tracklets 1 and 9 \('<b>'\) are the same": twins(path=np.full(12, "<b>")),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files(message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        feature_file.read_features(saved(tmp_path, **BAD[message]))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "features.npz"))


def test_a_query_may_be_listed_as_a_gallery_entry_too(tmp_path):
    role = np.array(["both", "query"] + ["both"] * 7 + ["gallery", "both", "both"])
    columns = twins(role=role.copy()) | {"role": role}
    assert len(feature_file.read_features(saved(tmp_path, **columns)).role) == 12


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        feature_file.read_features(str(tmp_path))
    with pytest.raises(InputError, match="No such file"):
        feature_file.read_features(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(InputError, match="it is no .npz"):
        feature_file.read_features(str(tmp_path / "text.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="one array without a name"):
        feature_file.read_features(str(tmp_path / "one.npy"))


def test_damaged_files(tmp_path):
    path = tmp_path / "features.npz"
    saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="it is no .npz"):
        feature_file.read_features(str(path))
    # bits flipped in the data of the first array
    path.write_bytes(whole[:300] + bytes(b ^ 255 for b in whole[300:400]) + whole[400:])
    with pytest.raises(InputError, match="embedding is damaged"):
        feature_file.read_features(str(path))

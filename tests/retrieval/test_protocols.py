"""Who queries whom, and with which filter."""

import numpy as np
import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.directions import direction_results, directions
from dinogrl_jax.retrieval.gallery import DescriptorSet, no_junk, same_camera
from dinogrl_jax.retrieval.metrics import one_direction
from dinogrl_jax.retrieval.protocols import filters_cameras, protocol_lines


def columns(n=60, roles=("both",)):
    rng = np.random.default_rng(0)
    return {
        "embedding": rng.standard_normal((n, 2, 8)).astype(np.float32),
        "identity": rng.integers(0, 6, n),
        "camera": rng.integers(0, 3, n),
        "modality": rng.choice(["visible", "infrared"], n),
        "role": rng.choice(roles, n),
    }


def score(**columns):
    return direction_results(directions(**columns))


def subset(c, modality, role):
    rows = np.flatnonzero((c["modality"] == modality) & np.isin(c["role"], (role, "both")))
    return DescriptorSet(c["embedding"], rows, c["identity"][rows], c["camera"][rows])


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("roles", [("both",), ("query", "gallery", "both")])
@pytest.mark.parametrize("protocol, junk", [("vcm", same_camera), ("bupt-full", no_junk)])
def test_directions(roles, protocol, junk):
    c = columns(roles=roles)
    results = score(**c, protocol=protocol)
    assert list(results) == ["visible_to_infrared", "infrared_to_visible"]
    for name, result in results.items():
        a, b = name.split("_to_")
        assert_same(result, one_direction(subset(c, a, "query"), subset(c, b, "gallery"), junk))


def test_camera_filter_overrides():
    c = columns()
    full = score(**c, protocol="bupt-full", camera_filter=True)
    filtered = score(**c, protocol="vcm")
    for name in filtered:
        assert_same(full[name], filtered[name])
    assert (
        full["visible_to_infrared"].mAP
        != score(**c, protocol="bupt-full")["visible_to_infrared"].mAP
    )


def test_the_published_sampler_drops_visible_remainders():
    """The counts that the published BUPTCampus code allocates, scaled: 70 → 64, 130 → 128."""
    n = 70 + 10 + 130 + 20
    c = columns(n) | {
        "modality": np.repeat(["visible", "infrared", "visible", "infrared"], [70, 10, 130, 20]),
        "role": np.repeat(["query", "gallery"], [80, 150]),
    }
    results = score(**c, protocol="bupt-official-drop64")
    there, back = results["visible_to_infrared"], results["infrared_to_visible"]
    assert (len(there.ap), there.gallery) == (64, 20)
    assert (len(back.ap), back.gallery) == (10, 128)
    assert len(score(**c, protocol="bupt-full")["visible_to_infrared"].ap) == 70


def test_a_protocol_exchanges_the_sets_of_the_other_direction():
    """From visible to infrared it takes that direction's matrix, transposed; visible queries and
    the infrared gallery take no part.
    """
    c = columns(roles=("query", "gallery"))
    results = score(**c, protocol="bupt-transposed")
    infrared, visible = subset(c, "infrared", "query"), subset(c, "visible", "gallery")
    assert_same(results["infrared_to_visible"], one_direction(infrared, visible, same_camera))
    assert_same(results["visible_to_infrared"], one_direction(visible, infrared, same_camera))
    c["role"] = np.where(c["modality"] == "infrared", "gallery", "query")
    with pytest.raises(InputError, match="no tracklet has the role"):
        score(**c, protocol="bupt-transposed")


def test_words_as_identities_and_cameras():
    c = columns()
    words = c | {
        "identity": np.char.add("p", c["identity"].astype(str)),
        "camera": np.char.add("D", c["camera"].astype(str)),
    }
    for a, b in zip(score(**c).values(), score(**words).values(), strict=True):
        assert_same(a, b)


def test_one_direction():
    c = columns()
    c["role"] = np.where(c["modality"] == "infrared", "query", "gallery")
    assert list(score(**c)) == ["infrared_to_visible"]


BAD = {
    "protocol 'sysu'.*vcm": {"protocol": "sysu"},
    "role of tracklet 2 is 'x'": {"role": np.array(["both", "both", "x"] * 20)},
    "modality of tracklet 0 is 'rgb'": {"modality": np.full(60, "rgb")},
    "identity has shape": {"identity": np.zeros(59)},
    "camera has shape": {"camera": np.zeros(59)},
    "needs a camera": {"camera": None},
    "tracklet 1 has no camera": {"camera": np.array([1, None] * 30, object)},
    "tracklet 0 has no camera": {"camera": np.full(60, -1)},
    "no tracklet has the role": {"role": np.full(60, "gallery")},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(InputError, match=message):
        score(**columns() | BAD[message])


def test_cameras_may_be_missing_where_no_filter_needs_them():
    c = columns() | {"camera": None}
    assert score(**c, protocol="bupt-full")["visible_to_infrared"].queries > 0


def test_a_protocol_says_what_it_scores():
    found = {"visible_to_infrared": {"queries": 512, "gallery": 2422}}
    junk, sizes = protocol_lines("bupt-official-drop64", "protocol", found)
    assert "bupt-official-drop64" in junk and "ignores: none" in junk and "multiple of 64" in junk
    assert sizes == "  visible to infrared: 512 queries, 2422 in the gallery"
    assert "its own identity and camera" in protocol_lines("vcm", "protocol", {})[0]
    assert "its own identity and camera" in protocol_lines("bupt-full", "on", {})[0]
    assert "ignores: none" in protocol_lines("vcm", "off", {})[0]
    (line,) = protocol_lines("bupt-transposed", "protocol", {})
    assert "camera; from visible to infrared, queries are the gallery of the other" in line


def test_the_setting_of_the_camera_filter():
    assert [filters_cameras("vcm", word) for word in ("protocol", "on", "off")] == [1, 1, 0]
    assert [filters_cameras("bupt-full", word) for word in ("protocol", "on", "off")] == [0, 1, 0]
    with pytest.raises(InputError, match="evaluation.camera_filter = 'yes'"):
        filters_cameras("vcm", "yes")

"""Every distance against its definition, and float32 against its own tolerance."""

from pathlib import Path

import numpy as np
import oracle
import pytest

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import distances

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "components.npz")


def random(n, seed=0, offset=0.0):
    return np.random.default_rng(seed).normal(offset, 1, (n, 4, 16)).astype(np.float32)


def test_golden_matrix():
    query, gallery = (GOLDEN[f"metric_{x}"].transpose(0, 2, 1) for x in ("query", "gallery"))
    matrix = distances.distance_matrix("part_euclidean", query, gallery)
    # a few float32 roundings; the stored sum over parts is a float32 sum as well
    np.testing.assert_allclose(matrix, GOLDEN["metric_distance"], rtol=1e-6)


@pytest.mark.parametrize("name", distances.FORMULAS)
@pytest.mark.parametrize("shape", [(4, 16), (16,)])
def test_definition(name, shape):
    query, gallery = random(5, 0, offset=1), random(6, 1, offset=1)
    query, gallery = (x[(slice(None),) + (0,) * (2 - len(shape))] for x in (query, gallery))
    expected = oracle.distances(name, query, gallery)
    # ten float32 roundings of the largest term, |a|² + |b|² of 64 values around 1
    np.testing.assert_allclose(distances.distance_matrix(name, query, gallery), expected, atol=3e-5)


@pytest.mark.parametrize("name", distances.FORMULAS)
def test_exact_is_float64(name):
    query, gallery = random(5), random(6, 1)
    offset = distances.centring_offset(name, query)
    exact = distances.exact_distances(name, query, gallery, offset)
    np.testing.assert_allclose(exact, oracle.distances(name, query, gallery), rtol=1e-12)
    pair = distances.exact_distance(name, query[2], gallery[3], offset)
    np.testing.assert_allclose(pair, exact[2, 3], rtol=1e-14)


def samples(kind, n, p, d):
    """Descriptors on which float32 has a hard time, one way or another."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, p, d))
    if kind == "offset":
        x += 10 * rng.standard_normal((p, d))
    if kind == "positive":
        x = np.maximum(x, 0) * rng.lognormal(0, 1, (p, 1))
    if kind == "almost constant parts":
        x[:, ::2] = 5 * x[:1, ::2] + 1e-4 * x[:, 1::2]
    if kind == "copies":
        x[: n // 2] = x[0] + 1e-3 * x[: n // 2]
        x[-20:] = x[:20]
    if kind == "heavy tails":
        x = rng.standard_t(2, (n, p, d))
    return x.astype(np.float32)


KINDS = ("normal", "offset", "positive", "almost constant parts", "copies", "heavy tails")


@pytest.mark.parametrize("name", distances.FORMULAS)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_keeps_to_a_third_of_its_tolerance(name, kind):
    x = samples(kind, 400, 70, 64)
    offset = distances.centring_offset(name, x[:150])
    query, gallery = (distances.centred_operand(part, offset) for part in (x[:150], x[150:]))
    exact = distances.exact_distances(name, x[:150], x[150:], offset)
    lengths = (
        np.asarray(distances.descriptor_lengths(side), np.float64) for side in (query, gallery)
    )
    scale = np.add.outer(*lengths) ** 2
    tolerance = distances.tolerance(name, exact, scale, 70, np.float32)
    error = np.abs(distances.distance_matrix(name, x[:150], x[150:]) - exact)
    assert (error <= tolerance / 3).all(), (error / tolerance).max()


def test_centring_saves_float32():
    x = random(40, offset=1000)
    exact = distances.exact_distances("euclidean", x[:20], x[20:], np.zeros((4, 16), np.float32))
    # 1,000 in float32 is good to 3e-5; without centring the errors are above 1
    np.testing.assert_allclose(
        distances.distance_matrix("euclidean", x[:20], x[20:]), exact, rtol=1e-5
    )


def test_unknown_name():
    with pytest.raises(InputError, match="manhattan.*part_euclidean"):
        distances.distance_matrix("manhattan", random(2), random(2))

"""Bounds are below the distances that they bound, whatever the numbers."""

import numpy as np
import oracle
import pytest

from dinogrl_jax.retrieval.store import bounds

SHAPE = (200, 3, 64)


def near(rng):
    """Pairs that differ in their last digits only: bounds are differences of large numbers."""
    x = rng.standard_normal(SHAPE)
    return x[:1] + 1e-6 * x


def few_directions(rng):
    """Everything lies in as many directions as there are: a bound is the distance."""
    return np.einsum("nr,rpd->npd", rng.standard_normal((200, 4)), rng.standard_normal((4, 3, 64)))


CASES = {
    "normal": lambda rng: rng.standard_normal(SHAPE),
    "far from 0": lambda rng: rng.standard_normal(SHAPE) + 1e4,
    "near": near,
    "few directions": few_directions,
    "large": lambda rng: 1e12 * rng.standard_normal(SHAPE),
    "small": lambda rng: 1e-18 * rng.standard_normal(SHAPE),
    "equal": lambda rng: np.ones(SHAPE),
    "zero": lambda rng: np.zeros(SHAPE),
    "whole numbers": lambda rng: rng.integers(0, 2, SHAPE),
    "one part larger": lambda rng: rng.standard_normal(SHAPE) * np.array([[[1e6], [1], [1e-6]]]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", bounds.BOUNDED)
def test_no_bound_is_above_its_distance(name, case):
    x = CASES[case](np.random.default_rng(0)).astype(np.float32)
    directions = bounds.fitted_directions(x[::3])
    stored = bounds.stored_rows(directions, x)
    for query in (x[0], x[1] * np.float32(1.001)):
        difference = np.linalg.norm(x.astype(np.float64) - query, axis=2)
        exact = oracle_distance(name, difference)
        bound = np.asarray(bounds.block_bounds(name, bounds.query_terms(directions, query), stored))
        assert (bound <= exact).all()
        assert (bounds.near_distances(name, query, x) <= exact).all()
        assert np.isfinite(bound).all()


def oracle_distance(name, of_parts):
    if name == "part_euclidean":
        return of_parts.mean(1)
    squared = (of_parts**2).sum(1)
    return squared if name == "squared_euclidean" else np.sqrt(squared)


def test_the_oracle_is_the_definition():
    x = np.random.default_rng(1).standard_normal((5, 3, 8))
    for name in bounds.BOUNDED:
        expected = oracle.distances(name, x[:1], x)[0]
        got = oracle_distance(name, np.linalg.norm(x - x[0], axis=2))
        np.testing.assert_allclose(got, expected, atol=1e-12 + 1e-7 * (name != "squared_euclidean"))


def test_in_few_directions_the_bound_is_the_distance():
    """It prunes: 4 of its 8 directions hold all the variance of 64."""
    x = few_directions(np.random.default_rng(0)).astype(np.float32)
    directions = bounds.fitted_directions(x)
    terms = bounds.query_terms(directions, x[0])
    bound = np.asarray(
        bounds.block_bounds("part_euclidean", terms, bounds.stored_rows(directions, x))
    )
    exact = np.linalg.norm(x - x[0], axis=2).mean(1)
    # rounding moves a' by a share of its length, and as much is subtracted; the rest is float32's
    length = np.linalg.norm(x - directions.offset, axis=2).mean(1)
    assert (exact - bound <= 2 * bounds.MOVED * length + 1e-3 * exact).all()
    assert (bound[1:] > 0.95 * exact[1:]).all()


def test_directions_are_stored_whole():
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    directions = bounds.fitted_directions(x)
    again = bounds.Directions.from_bytes(*directions.as_bytes(), 3, 64)
    assert all(map(np.array_equal, directions, again))
    product = directions.basis @ directions.basis.transpose(0, 2, 1)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(8), (3, 8, 8)), atol=1e-12)

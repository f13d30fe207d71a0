"""Which queries are shown, what is beside them, and what their parts contribute."""

import numpy as np
import pytest
from sets import drawn

from dinogrl_jax.retrieval.directions import Direction
from dinogrl_jax.retrieval.gallery import DescriptorSet, no_junk, same_camera
from dinogrl_jax.retrieval.metrics import one_direction, result_from_matrix
from dinogrl_jax.retrieval.report import ranked_lists
from dinogrl_jax.retrieval.scoring import match_and_junk_masks


def direction(seed=0, junk=same_camera):
    """Rows that are not places: the descriptors hold both sets, the gallery first."""
    query, gallery = drawn(seed, 20, 50)
    embedding = np.concatenate([gallery.embedding, query.embedding])
    columns = [(x.identity, x.camera) for x in (query, gallery)]
    rows = np.arange(50, 70), np.arange(50)
    return Direction(*(DescriptorSet(embedding, r, *c) for r, c in zip(rows, columns)), junk)  # noqa: B905


def test_best_median_and_worst():
    result = one_direction(*direction())
    picked = ranked_lists.shown_queries(result)
    assert [kind for kind, _ in picked] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
    ap = {kind: [result.ap[p] for k, p in picked if k == kind] for kind, _ in picked}
    order = np.sort(result.ap[result.valid])
    assert sorted(ap["best"]) == list(order[-2:]) and sorted(ap["worst"]) == list(order[:2])
    middle = (len(order) - 2) // 2
    assert set(ap["median"]) <= set(order[middle - 1 : middle + 3])


def test_few_queries_are_shown_once():
    result = one_direction(*direction())
    order = np.flatnonzero(result.valid)
    few = result._replace(valid=np.isin(np.arange(len(result.valid)), order[:3]))
    picked = ranked_lists.shown_queries(few)
    assert sorted(place for _, place in picked) == sorted(order[:3].tolist())


@pytest.mark.parametrize("junk", [same_camera, no_junk])
@pytest.mark.parametrize("reranked", [False, True])
def test_lists(junk, reranked):
    d = direction(1, junk)
    distance = np.random.default_rng(0).random((20, 50)) if reranked else None
    result = (
        result_from_matrix(distance, *match_and_junk_masks(d)) if reranked else one_direction(*d)
    )
    for one in ranked_lists.shown_lists(d, result, "part_euclidean", distance):
        place = one.query - 50
        assert len(one.rows) == 10 and (np.diff(one.distance) >= 0).all()
        identity = d.query.identity[place]
        np.testing.assert_array_equal(one.correct, d.gallery.identity[one.rows] == identity)
        ignored = d.junk(
            identity,
            d.query.camera[place],
            d.gallery.identity[one.rows],
            d.gallery.camera[one.rows],
        )
        assert not ignored.any()
        assert one.ap == result.ap[place] and one.rank == result.first[place]
        if one.rank <= 10:  # the first match of the list is the match
            assert one.correct.argmax() == one.rank - 1
            assert one.rows[one.rank - 1] == one.match
        assert d.gallery.identity[one.match] == identity


@pytest.mark.parametrize("name", ["part_euclidean", "squared_euclidean", "cosine", "dot"])
def test_contributions_add_up_to_the_distance(name):
    import oracle

    rng = np.random.default_rng(0)
    query, match, *others = rng.standard_normal((12, 5, 8)).astype(np.float32)
    parts = ranked_lists.contributions(name, query, match, np.array(others))
    to_match = oracle.distances(name, query[None], match[None])[0, 0]
    to_others = oracle.distances(name, query[None], np.array(others)).mean()
    assert parts.sum() == pytest.approx(to_others - to_match)
    assert len(parts) == 5


def test_the_part_that_is_alike_speaks_for_the_match():
    rng = np.random.default_rng(0)
    query, match, *others = rng.standard_normal((12, 5, 8)).astype(np.float32)
    match[3] = query[3]
    assert (
        ranked_lists.contributions("part_euclidean", query, match, np.array(others)).argmax() == 3
    )
    assert not ranked_lists.contributions("part_euclidean", query, match, np.zeros((0, 5, 8))).any()


def test_part_labels():
    assert ranked_lists.part_labels(["a", "b"], 2) == ["a", "b"]
    assert ranked_lists.part_labels(["a", "b"], 3) == ["part 1", "part 2", "part 3"]

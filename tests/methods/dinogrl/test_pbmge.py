"""PBMGE against the published order: one visit after the other, relu of whole affinities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.methods.dinogrl.pbmge import EPSILON, MOMENTUM, PBMGE, side_by_side

PAIR, STREAMS = ("shared", "specific"), ("gait", "appearance")


def visit(p, query, source, running, train):
    """The enhanced query [v, d] and the running statistics after one direction's visit."""
    theta, phi = (
        x[..., None] * p[f"{name}_weight"] + p[f"{name}_bias"]
        for name, x in (("theta", query), ("phi", source))
    )
    g = source[..., None] * p["g_weight"] + p["g_bias"]
    f = jnp.einsum("vic,vjc->vij", theta, phi) / query.shape[1]
    after = {}
    for name, sign in zip(PAIR, (1, -1), strict=True):
        product = jnp.einsum("vij,vjc->vic", jax.nn.relu(sign * f), g)
        y = product @ p[f"{name}_weight"] + p[f"{name}_bias"]
        mean, var = running[f"{name}_mean"], running[f"{name}_var"]
        for key, old, new in (("mean", mean, y.mean()), ("var", var, y.var(ddof=1))):
            after[f"{name}_{key}"] = (1 - MOMENTUM) * old + MOMENTUM * new
        mean, var = (y.mean(), y.var()) if train else (mean, var)
        y = (y - mean) / jnp.sqrt(var + EPSILON) * p[f"{name}_scale"] + p[f"{name}_shift"]
        query = query + sign * y
    return query, after if train else running


def in_turns(variables, parts, train, *streams):
    """What PBMGE appends to each stream, and the running statistics."""
    added, statistics = [], {}
    for name, own, other in zip(STREAMS, streams, streams[::-1], strict=True):
        p, running = (variables[k][f"enhance_{name}"] for k in ("params", "batch_stats"))
        part, found = 1, []
        for count in parts[1:]:
            query = own[:, 0]
            for _ in range(count):
                query, running = visit(p, query, other[:, part], running, train)
                part += 1
            found.append(query)
        added.append(jnp.stack(found, 1))
        statistics[f"enhance_{name}"] = running
    return added, statistics


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("parts", [(1, 2, 4), (1, 3, 1, 3)])
def test_side_by_side_is_in_turns(parts, train):
    with jax.enable_x64(True):
        v, d = 3, 6
        keys = iter(jax.random.split(jax.random.key(0), 100))
        streams = 0.3 + jax.random.normal(next(keys), (2, v, sum(parts), d))
        model = PBMGE(parts)
        variables = jax.tree.map(
            lambda x: 0.5 + 0.3 * jax.random.normal(next(keys), x.shape),
            model.init(jax.random.key(1), *streams, train=False),
        )
        weight = jax.random.normal(next(keys), (2, v, len(parts) - 1, d))

        def appended(variables, *streams):
            results, mutated = model.apply(variables, *streams, train=train, mutable="batch_stats")
            return [x[:, sum(parts) :] for x in results], mutated["batch_stats"]

        def published(variables, *streams):
            return in_turns(variables, parts, train, *streams)

        def weighted(call):
            def scalar(params, *streams):
                added, statistics = call({**variables, "params": params}, *streams)
                return sum((x * w).sum() for x, w in zip(added, weight, strict=True)), statistics

            return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))

        given = variables["params"], *streams
        found, expected = (weighted(call)(*given) for call in (appended, published))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected
        )


def test_every_part_is_visited_once_and_granularities_from_the_top():
    blocks, longest = side_by_side((1, 2, 4, 3))
    assert longest.tolist() == [1, 2, 0]
    assert [b.tolist() for b in blocks] == [[[2, 6, 0], [3, 7, 1]], [[4, 8]], [[5]]]

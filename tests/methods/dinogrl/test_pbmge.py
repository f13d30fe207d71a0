"""PBMGE against a re-statement of the published order, in NumPy-like steps of a single visit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dinogrl_jax.methods.dinogrl.pbmge import PBMGE
from dinogrl_jax.ops import forms

EPSILON, MOMENTUM = 1e-5, 0.1  # of the published BatchNorm
PAIR, STREAMS = ("shared", "specific"), ("gait", "appearance")


def visited(p, query, source, running, train):
    """The enhanced query [v, d] and the running statistics after one direction's visit."""
    theta, phi = (
        x[..., None] * p[f"{name}_weight"] + p[f"{name}_bias"]
        for name, x in (("theta", query), ("phi", source))
    )
    g = source[..., None] * p["g_weight"] + p["g_bias"]
    f = jnp.einsum("vic,vjc->vij", theta, phi) / query.shape[1]
    after, result = {}, query
    for name, sign in zip(PAIR, (1, -1), strict=True):
        product = jnp.einsum("vij,vjc->vic", jax.nn.relu(sign * f), g)
        y = product @ p[f"{name}_weight"] + p[f"{name}_bias"]
        norm, old = p[f"{name}_norm"], running[f"{name}_norm"]
        new = {"mean": y.mean(), "var": y.var(ddof=1)}
        after[f"{name}_norm"] = {k: (1 - MOMENTUM) * old[k] + MOMENTUM * new[k] for k in new}
        mean, var = (y.mean(), y.var()) if train else (old["mean"], old["var"])
        y = (y - mean) / jnp.sqrt(var + EPSILON) * norm["scale"] + norm["bias"]
        result = result + sign * y
    return result, after if train else running


def enhanced(variables, parts, train, *streams):
    """What PBMGE appends to each stream, and the running statistics."""
    appended, statistics = [], {}
    for name, own, other in zip(STREAMS, streams, streams[::-1], strict=True):
        p, running = (variables[k]["visit"][name] for k in ("params", "batch_stats"))
        part, found = 1, []
        for count in parts[1:]:
            query = own[:, 0]
            for _ in range(count):
                query, running = visited(p, query, other[:, part], running, train)
                part += 1
            found.append(query)
        appended.append(jnp.stack(found, 1))
        statistics[name] = running
    return appended, {"visit": statistics}


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("parts", [(1, 2, 4), (1, 3, 1, 3)])
def test_the_published_order(parts, train, form):
    with jax.enable_x64(True), forms.using(form, "cpu"):
        v, d = 3, 6
        keys = iter(jax.random.split(jax.random.key(0), 100))
        streams = 0.3 + jax.random.normal(next(keys), (2, v, sum(parts), d))
        model = PBMGE(parts)
        variables = jax.tree.map(
            lambda x: 0.5 + 0.3 * jax.random.normal(next(keys), x.shape),
            model.init(jax.random.key(1), *streams, train=False),
        )
        weight = jax.random.normal(next(keys), (2, v, len(parts) - 1, d))

        def made(variables, *streams):
            results, changed = model.apply(variables, *streams, train=train, mutable="batch_stats")
            return [x[:, sum(parts) :] for x in results], changed["batch_stats"]

        def published(variables, *streams):
            return enhanced(variables, parts, train, *streams)

        def weighted(call):
            def scalar(params, *streams):
                appended, statistics = call({**variables, "params": params}, *streams)
                pairs = zip(appended, weight, strict=True)
                return sum((x * w).sum() for x, w in pairs), statistics

            return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))

        given = variables["params"], *streams
        found, expected = (weighted(call)(*given) for call in (made, published))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, np.reshape(b, a.shape), rtol=1e-9, atol=1e-9)


def test_it_starts_as_the_identity():
    """Both normalisations start with scale and shift zero: a stream's new parts are its first."""
    streams = jax.random.normal(jax.random.key(0), (2, 3, 7, 6))
    model = PBMGE((1, 2, 4))
    variables = model.init(jax.random.key(1), *streams, train=False)
    for stream, made in zip(streams, model.apply(variables, *streams, train=False), strict=True):
        np.testing.assert_array_equal(made[:, :7], stream)
        np.testing.assert_array_equal(made[:, 7:], stream[:, :1].repeat(2, axis=1))

"""DinoGRL at full size against the published implementation's golden values.

Limits, and the reason for each, are in `fidelity.LIMITS`.
"""

import fidelity
import pytest

SECONDS, GIB = 15 * 60, 12  # for all three together, and at any time


@pytest.fixture(scope="module")
def costs():
    return []


@pytest.mark.parametrize("name", fidelity.LIMITS)
def test_published_values(name, costs, capsys):
    result = fidelity.run(name)
    with capsys.disabled():
        print("", *fidelity.rows(name, result), sep="\n")
    assert result["figures"].keys() == fidelity.LIMITS[name].keys()
    for figure, limit in fidelity.LIMITS[name].items():
        assert result["figures"][figure] <= limit.value, figure
    costs.append(result["seconds"])
    assert result["peak_gib"] < GIB
    assert sum(costs) < SECONDS

"""DinoGRL at full size against the published implementation's golden values, in both forms.

Limits, and the reason for each, are in `fidelity.LIMITS`. Time and peak memory are printed.
"""

import fidelity
import pytest


@pytest.mark.parametrize("form", fidelity.FORMS)
@pytest.mark.parametrize("name", fidelity.LIMITS)
def test_published_values(name, form, record_property):
    result = fidelity.run(name, form)
    for row in fidelity.rows(name, form, result):
        record_property("fidelity", row)
    assert result["figures"].keys() == fidelity.LIMITS[name].keys()
    for figure, limit in fidelity.LIMITS[name].items():
        assert result["figures"][figure] <= limit.value, figure

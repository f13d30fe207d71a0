"""X-ReID at full size against the published implementation's golden values.

Limits, and the reason for each, are in `xreid_fidelity.LIMITS`. Time and peak memory are printed.
By default float32 and the fast forms run, as users have them; test_xreid_components.py compares the
parts in float64. The others are `pytest -m full`, and `xreid_fidelity.py` prints all.
"""

import pytest
import xreid_fidelity
from fidelity_table import FORMS, rows, run

DEFAULT = {("eval", "fast"), ("train_float32", "fast")}
CASES = [
    pytest.param(name, form, marks=[pytest.mark.full] * ((name, form) not in DEFAULT))
    for name in xreid_fidelity.LIMITS
    for form in FORMS
]


@pytest.mark.parametrize("name, form", CASES)
def test_published_values(name, form, record_property):
    result = run(xreid_fidelity.__file__, name, form)
    for row in rows(xreid_fidelity.LIMITS, name, form, result):
        record_property("fidelity", row)
    assert result["figures"].keys() == xreid_fidelity.LIMITS[name].keys()
    for figure, limit in xreid_fidelity.LIMITS[name].items():
        assert result["figures"][figure] <= limit.value, figure

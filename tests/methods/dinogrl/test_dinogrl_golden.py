"""DinoGRL at full size against the published implementation's golden values.

Limits, and the reason for each, are in `fidelity.LIMITS`. Time and peak memory are printed. One
training runs by default, of the forms that users run and in float64, where rounding hides nothing.
Every form is compared with its definition in tests/ops/test_forms.py; the other trainings are
`pytest -m full`, and `fidelity.py` prints all.
"""

import fidelity
import pytest
from fidelity_table import FORMS, rows, run

DEFAULT = {("eval", "fast"), ("eval", "plain"), ("train_float64", "fast")}
CASES = [
    pytest.param(name, form, marks=[pytest.mark.full] * ((name, form) not in DEFAULT))
    for name in fidelity.LIMITS
    for form in FORMS
]


@pytest.mark.parametrize("name, form", CASES)
def test_published_values(name, form, record_property):
    result = run(fidelity.__file__, name, form)
    for row in rows(fidelity.LIMITS, name, form, result):
        record_property("fidelity", row)
    assert result["figures"].keys() == fidelity.LIMITS[name].keys()
    for figure, limit in fidelity.LIMITS[name].items():
        assert result["figures"][figure] <= limit.value, figure

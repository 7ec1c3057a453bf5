"""The text is that of Python's encoder."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bkrules.report.indented import indented

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(VALUES)
def test_any_value(value: object) -> None:
    assert indented(value) == json.dumps(value, indent=1)

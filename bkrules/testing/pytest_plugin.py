"""The pytest plugin with the `sandbox` fixture."""

from __future__ import annotations

import pytest

from bkrules.testing.sandbox import Sandbox

CURRENT: list[Sandbox] = []


@pytest.fixture
def sandbox() -> Sandbox:
    """The backend, the mirror and the point of the matrix of this cell. Only a test that bk runs has one."""
    if not CURRENT:
        raise pytest.UsageError(
            "the 'sandbox' fixture exists in cells only: list this file in a test_matrix and run it with `bk test`"
        )
    return CURRENT[0]

"""The fixture of this package."""

from __future__ import annotations

from pathlib import Path

import pytest
from builder import Builder

from bkrules.testing.sandbox import Sandbox


@pytest.fixture
def build(sandbox: Sandbox, tmp_path: Path) -> Builder:
    return Builder(sandbox, tmp_path)

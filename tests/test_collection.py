"""The tests of this repository are collected in one order, whatever the hash seed is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.soak
def test_the_order_of_the_tests_does_not_depend_on_the_hash_seed(repository: Path) -> None:
    """Two processes that share the tests must collect the same list, and each has its own seed."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider"]

    def collected(seed: int) -> list[str]:
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "::" in line]

    first, second = (collected(seed) for seed in range(2))
    assert len(first) > 5000
    assert second == first

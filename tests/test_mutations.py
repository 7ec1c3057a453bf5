"""A key without something that belongs into it makes a test fail, and it is the test of that very thing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import CAUGHT_BY, MUTATIONS


@pytest.mark.parametrize("tests", ["caught", pytest.param("all", marks=pytest.mark.soak)])
def test_a_broken_key_is_caught(repository: Path, tests: str) -> None:
    options = ("-q", "-rf", "-p", "no:cacheprovider", "tests/test_keys.py")
    command = [sys.executable, "tests/mutations.py", tests, *options]

    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    outputs = dict(part.split("\n", 1) for part in done.stdout.split("mutation: ")[1:])
    failed = {
        name: set(re.findall(r"^FAILED tests/test_keys\.py::(\w+)", text, re.MULTILINE))
        for name, text in outputs.items()
    }
    codes = {name: int(text.rpartition("exit code: ")[2]) for name, text in outputs.items()}
    assert {*failed} == {*MUTATIONS}, done.stdout + done.stderr
    assert failed == CAUGHT_BY, done.stdout + done.stderr
    assert codes == {name: 1 if caught else 0 for name, caught in CAUGHT_BY.items()}, done.stdout + done.stderr

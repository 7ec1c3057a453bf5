"""The project's own checks: one pytest run is one answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--no-incremental"],
        ["bkrules", "fmt", "--check"],
    ],
    ids=" ".join,
)
def test_the_code_is_clean(repository: Path, command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=repository, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr

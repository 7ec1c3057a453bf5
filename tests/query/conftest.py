from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bkrules.loading.workspace import Workspace
from bkrules.rules import RULES

MakeWorkspace = Callable[[Mapping[str, str]], Workspace]


@pytest.fixture
def make_workspace(tmp_path: Path) -> MakeWorkspace:
    """A workspace with these files, and bk's own rules."""

    def make(files: Mapping[str, str]) -> Workspace:
        for path, text in {"WORKSPACE.py": "", **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Workspace(str(tmp_path), RULES)

    return make

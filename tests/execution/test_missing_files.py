from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.runners.missing_files import hint_of

DATA = "name it in the attribute 'data'"
IN_CELL = ["src/t/test_a.py", "src/t/helper.py", "src/pack/__init__.py", "host/lib/libc.so.6"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for path in ("t/test_a.py", "t/helper.py", "t/other.py", "t/data.txt", "pack/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        (["other"], f"t/other.py is in the workspace and not in the cell: {DATA}"),
        (["/src/t/data.txt"], f"t/data.txt is in the workspace and not in the cell: {DATA}"),
        (["other", "t/data.txt"], "t/other.py and t/data.txt are in the workspace and not in the cell: name them"),
        (["helper"], "t/helper.py is in the cell, but its folder is not on Python's path: import t.helper, or set"),
        (["helper", "other"], "t/other.py is in the workspace and not in the cell"),
        (["pack.nothing"], ""),
        (["/etc/shadow", "../outside"], ""),
    ],
)
def test_a_hint_is_true_of_the_cell(workspace: Path, missing: list[str], hint: str) -> None:
    found = hint_of(missing, "t/test_a.py", workspace, IN_CELL)
    assert found.startswith(hint) and bool(found) == bool(hint)

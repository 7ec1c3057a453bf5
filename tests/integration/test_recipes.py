"""The recipes for CIs that `bk init` writes: they are read, and their actions are pinned. `test_simulated_ci.py` runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import recipes

from bkrules.starter.files import CI

FOLDER = Path(__file__).parents[2] / "docs/ci"


def test_the_actions_are_pinned() -> None:
    used = re.findall(r"uses: (\S+)( # v[\d.]+)?$", (FOLDER / "github.yml").read_text(), re.MULTILINE)
    assert len(used) == 8
    assert [name for name, version in used if not version or not re.search("@[0-9a-f]{40}$", name)] == []


def test_the_documents_show_all_recipes() -> None:
    """The files in `docs/ci` are links to them."""
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(CI)
    assert [path.name for path in FOLDER.iterdir() if not path.is_symlink()] == []


@pytest.mark.parametrize(
    "text", ["a:\n  - b\n c: d\n", "a: b\na: c\n", 'a: "b"\n', "a: b: c\n", "a:\n", "- a\nb: c\n", "a: {b: c}\n"]
)
def test_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        recipes.read(text)

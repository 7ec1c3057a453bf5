"""What pytest collects is what bk runs: each item is a cell, and a cell that collects other tests than were declared fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaces import Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

TWELVE = """
import pytest
from other import test_imported, TestElsewhere

def make():
    return lambda: None

test_made = make()

async def test_asynchronous():
    pass

def test_plain():
    pass

if True:
    def test_below_if():
        pass

try:
    import nothing_of_this_name
except ImportError:
    def test_below_try():
        pass

for name in ("one", "two"):
    exec(f"def test_{name}(): pass")

@pytest.mark.parametrize("path", ["a/b", "../c"])
def test_slashes(path):
    assert path in ("a/b", "../c")

class TestHere:
    if len("three") == 5:
        def test_conditional(self):
            pass

def test_deleted():
    raise AssertionError("it must not run")

del test_deleted
"""
OTHER = """
def test_imported():
    pass

class TestElsewhere:
    def test_inside(self):
        pass
"""
NAMES = {
    "test_made",
    "test_asynchronous",
    "test_plain",
    "test_below_if",
    "test_below_try",
    "test_one",
    "test_two",
    "test_slashes[a/b]",
    "test_slashes[../c]",
    "TestHere::test_conditional",
    "test_imported",
    "TestElsewhere::test_inside",
}


def statuses(cells: list[dict[str, Any]]) -> dict[str, str]:
    return {cell["name"].rpartition("/worker=")[0]: cell["status"] for cell in cells}


def test_twelve_tests_are_twelve_cells(tools: Space, report: Report) -> None:
    matrix(tools, TWELVE, "oci")
    tools.write("t/other.py", OTHER)
    done = tools.bk("build", "//targets:small")
    found = statuses(report(tools.root, "small")["cells"])
    assert done.returncode == 3, done.stdout + done.stderr  # pytest fails a coroutine for which it has no plugin
    assert found == {name: "failed" if name == "test_asynchronous" else "passed" for name in NAMES}
    [cell] = [one for one in report(tools.root, "small")["cells"] if one["status"] == "failed"]
    assert "async def functions are not natively supported" in cell["reason"]

    again = tools.bk("build", "//targets:small")
    assert "CollectTests" in done.stderr
    assert "CollectTests" not in again.stderr, "the list is cached by the files that it was read from"
    tools.write("t/other.py", OTHER + "def test_new(): pass\n")
    assert "CollectTests" in tools.bk("aquery", "//targets:small").stderr

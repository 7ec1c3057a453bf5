"""The table of BuildKit's harness says of each behaviour what bk has, and which test proves it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

IDS = [
    *(f"S{number}" for number in range(1, 42)),
    *(f"A{number}" for number in range(1, 51)),
    *(f"D{number}" for number in range(1, 12)),
    *(f"L{number}" for number in range(1, 13)),
]
NO_PROOF = "not there"


@pytest.fixture(scope="module")
def rows(repository: Path) -> dict[str, list[str]]:
    """The cells of each row, by its id."""
    text = (repository / "bkrules/testing/README.md").read_text()
    found = re.findall(r"^\| ([SADL]\d+) \| (.+) \|$", text, re.MULTILINE)
    assert len({name for name, _ in found}) == len(found)
    return {name: rest.split(" | ") for name, rest in found}


@functools.cache
def names_in(path: Path) -> set[str]:
    """The names of the functions in a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_behaviour_is_missing(rows: dict[str, list[str]]) -> None:
    assert list(rows) == IDS
    assert {name: len(row) for name, row in rows.items() if len(row) != 3} == {}


@pytest.mark.parametrize("name", IDS)
def test_every_proof_exists(repository: Path, rows: dict[str, list[str]], name: str) -> None:
    """A row without a proof says so, and why."""
    _, own, proof = rows[name]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", proof)
    if not named:
        assert proof == "-"
        assert own.startswith(NO_PROOF), f"{name} names no test"
    for path, test in named:
        assert test in names_in(repository / path), f"{path} has no {test}"

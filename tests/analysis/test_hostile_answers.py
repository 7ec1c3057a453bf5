"""The answer to CollectTests is a file that the module could write: nothing of it is believed to have a form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bkrules.analysis import collection
from bkrules.errors import LoadError
from bkrules.model import digest
from bkrules.model.action import Action, FileNode
from bkrules.model.label import Label
from bkrules.model.parameters import CollectTests
from bkrules.model.wire import text_of

MODULE = "p/test_it.py"
ANSWER: dict[str, Any] = {
    "tests": [{"item": "test_a", "callable": "test_a", "line": 3, "marks": [["slow", "[1]", "{'why': 2}"]]}],
    **{"skipped": "", "missing": [], "errors": [], "code": 0},
}


def read(folder: Path, data: bytes) -> list[str]:
    label = Label("p", "m")
    action = Action("id", label, "CollectTests", (text_of(CollectTests(module=MODULE)),), (), ("collected/x.json",))
    path = folder / "x.json"
    path.write_bytes(data)
    return [
        test.name
        for test in collection.tests_of(action, {"collected/x.json": FileNode(digest.of_bytes(data), str(path))})
    ]


def test_an_answer_names_the_tests(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(ANSWER).encode()) == ["test_a"]
    skipped = {**ANSWER, "tests": [], "skipped": "not today"}
    assert read(tmp_path, json.dumps(skipped).encode()) == ["test_it.py"]


def marks(*mark: object) -> dict[str, Any]:
    return {**ANSWER, "tests": [{**ANSWER["tests"][0], "marks": [mark]}]}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {**ANSWER, "tests": {}},
        {**ANSWER, "tests": [{}]},
        {**ANSWER, "tests": [{**ANSWER["tests"][0], "line": "3"}]},
        {**ANSWER, "surprise": 1},
        marks("slow", "1 +", "{}"),
        marks("slow", "open('x')", "{}"),
        marks("slow", "[1]", "[2]"),
        marks("slow", "7", "{}"),
        marks("slow", "[1]", "{1: 2}"),
        marks("slow", "(" * 5000, "{}"),
        marks("slow"),
    ],
    ids=lambda document: str(document)[:60],
)
def test_an_answer_of_another_form_is_a_damaged_list(tmp_path: Path, document: object) -> None:
    with pytest.raises(LoadError, match=f"the list of tests of {MODULE} is damaged"):
        read(tmp_path, json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"{"], ids=["empty", "bytes", "nested", "half"])
def test_bytes_that_are_not_json_are_a_damaged_list(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LoadError, match=f"the list of tests of {MODULE} is damaged"):
        read(tmp_path, data)

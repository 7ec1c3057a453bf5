"""The check of a report by its schema refuses what a library for schemas refuses, and unknown fields alone are allowed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from many_cells import write_many
from schemas import REPORT, schema

from bkrules.report.schema import check_report

VALUES: list[Any] = [None, 0, 1, -1, 1.5, True, "", "x", "\0", "\ud800", "passed", [], [1], ["x"], [[]], {}, {"a": 1}]


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A report with every field."""
    path = write_many(tmp_path, 40) / "bk-out/many/matrix/report.json"
    written: dict[str, Any] = json.loads(path.read_text())
    written["cells"] = [next(cell for cell in written["cells"] if cell["attempts"])]
    (cell,) = written["cells"]
    cell["cases"] = [{"name": "a", "status": "failed", "seconds": 1.0, "reason": "b"}]
    cell.update(egress=[{"who": "a", "what": "b"}], tainted=["a"], run={"number": 1, "of": 2})
    return written


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Each object or list in a document, with each key or index in it."""
    names = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in names:
        yield value, name
        yield from places(value[name])  # type: ignore[index]


def lenient(rule: Any) -> Any:
    """The schema, where objects may have unknown fields."""
    if isinstance(rule, dict):
        return {name: lenient(each) for name, each in rule.items() if (name, each) != ("additionalProperties", False)}
    return [lenient(each) for each in rule] if isinstance(rule, list) else rule


def is_refused(document: object) -> bool:
    try:
        check_report(document)
    except ValueError:
        return True
    return False


def test_what_is_refused_is_what_the_schema_refuses(document: dict[str, Any]) -> None:
    validator = Draft202012Validator(lenient(schema(REPORT)))
    assert not is_refused(document) and validator.is_valid(document)
    count = 0
    for number in range(len(list(places(document)))):
        for value in VALUES:
            changed = copy.deepcopy(document)
            place, name = list(places(changed))[number]
            place[name] = value
            assert is_refused(changed) != validator.is_valid(changed), (name, value)
            count += is_refused(changed)
        changed = copy.deepcopy(document)
        place, name = list(places(changed))[number]
        del place[name]
        assert is_refused(changed) != validator.is_valid(changed), name
    assert count > 300


def test_the_first_fault_is_named(document: dict[str, Any]) -> None:
    document["cells"][0]["attempts"][0]["seconds"] = float("inf")
    with pytest.raises(ValueError, match=r"^cells\[0\]\.attempts\[0\]\.seconds is not valid: Infinity$"):
        check_report(document)
    del document["cells"][0]["attempts"][0]["seconds"]
    with pytest.raises(ValueError, match=r"^cells\[0\]\.attempts\[0\] has no field 'seconds'$"):
        check_report(document)


def test_a_field_of_a_later_bk_is_allowed(document: dict[str, Any]) -> None:
    document["cells"][0]["new"] = document["new"] = {"x": [1]}
    check_report(document)

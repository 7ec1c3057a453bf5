"""The published schemas: they are schemas, they describe each field, and their words are those of the code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemas import EVENTS, REPORT, parts, schema, validate

from bkrules.cache.file_digests import FileDigests
from bkrules.execution.result import Attempt, CellReport, Result
from bkrules.model.cases import OF_A_CASE
from bkrules.model.label import Label
from bkrules.model.status import FailureClass, Status
from bkrules.report import artifacts, events
from bkrules.report.build_result import BuildResult
from bkrules.report.merge import merged

MATRIX = Label("t", "m")


@pytest.mark.parametrize("name", [REPORT, EVENTS])
def test_each_is_a_schema_that_describes_every_field(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    fields = dict(parts(schema(name)))
    assert len(fields) > 30
    assert [path for path, one in fields.items() if "$ref" not in one and not one.get("description")] == []
    objects = {path: one for path, one in fields.items() if "properties" in one}
    assert [path for path, one in objects.items() if one.get("additionalProperties") is not False] == []


def test_the_words_are_those_of_the_code() -> None:
    report, stream = dict(parts(schema(REPORT))), dict(parts(schema(EVENTS)))
    assert report[".schema"]["const"] == artifacts.SCHEMA
    assert stream[".buildMetadata.metadata.BK_EVENTS_SCHEMA"]["const"] == events.SCHEMA
    assert set(report[".cell.status"]["enum"]) == set(report[".attempt.status"]["enum"]) == set(Status)
    assert set(report[".cell.class"]["enum"]) == {name or None for name in FailureClass}
    assert set(report[".case.status"]["enum"]) == set(OF_A_CASE)
    assert set(report[".summary"]["properties"]) == {*Status, "cached", "total"}
    codes = stream[".finished.exitCode"]["properties"]
    assert dict(zip(codes["code"]["enum"], codes["name"]["enum"], strict=True)) == events.EXIT_CODES
    assert set(stream[".testResult.status"]["enum"]) == set(events.STATUSES.values())


@pytest.fixture
def document(cell: Callable[..., Result], tmp_path: Path) -> dict[str, Any]:
    """A report with a cell of each status."""
    attempts = (
        Attempt(Status.FAILED, 1.0, "attempt_1/test.log", FailureClass.TEST, "why"),
        Attempt(Status.PASSED, 2.0, "test.log"),
    )
    results = [
        cell("flaky", "a", ran=CellReport(attempts, (("wget", "tcp 192.0.2.1:80"),), ("memory",), ("/tmp",))),
        cell("passed", "b", cached=True, run=1, runs=2),
        cell("failed", "c", failure="test", reason="why", ran=CellReport()),
        cell("timed out", "d", failure="timeout", reason="why", ran=CellReport()),
        cell("skipped", "e", failure="machine", reason="why"),
        cell("not run", "f", failure="build", reason="why"),
    ]
    artifacts.write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path, FileDigests(""))
    found: dict[str, Any] = json.loads((tmp_path / "t/m/report.json").read_text())
    return found


def test_reports_are_valid(document: dict[str, Any]) -> None:
    assert set(document["summary"]) == {*Status, "cached", "total"}
    validate(REPORT, document)
    validate(REPORT, merged([document]))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda report: report.update(schema=1), "$.schema"),
        (lambda report: report.update(more=1), "$"),
        (lambda report: report.pop("label"), "$"),
        (lambda report: report["cells"][0].update(status="odd"), "$.cells[0].status"),
        (lambda report: report["cells"][0]["attempts"][1].update(seconds=-1), "$.cells[0].attempts[1].seconds"),
        (lambda report: report["cells"][2].pop("reason"), "$.cells[2]"),
    ],
)
def test_what_is_no_report_is_refused(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None], place: str
) -> None:
    change(document)
    with pytest.raises(AssertionError) as refused:
        validate(REPORT, document)
    assert str(refused.value).startswith(f"{REPORT}: {place}: ")


@pytest.mark.parametrize(
    "event",
    [
        {"id": {"started": {}}},
        {"id": {"progress": {"opaqueCount": 1}}, "progress": {}, "expanded": {}},
        {"id": {"progress": {"opaqueCount": 1}, "started": {}}, "progress": {}},
        {"id": {"odd": {}}, "progress": {}},
        {"id": {"buildFinished": {}}, "progress": {"stdout": ""}},
    ],
    ids=["no payload", "two payloads", "two ids", "an unknown kind", "an unknown field"],
)
def test_what_is_no_event_is_refused(event: dict[str, Any]) -> None:
    validate(EVENTS, {"id": {"progress": {"opaqueCount": 1}}, "progress": {}})
    with pytest.raises(AssertionError, match=EVENTS):
        validate(EVENTS, event)

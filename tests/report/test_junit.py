"""The results of a matrix as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from bkrules.execution.result import Attempt, CellReport, Result
from bkrules.model.label import Label
from bkrules.model.status import FailureClass, Status
from bkrules.report.junit import junit

MATRIX = Label("t", "m")
TWICE = (
    Attempt(Status.FAILED, 1.0, "attempt_1/test.log", FailureClass.INFRASTRUCTURE, "buildkitd ended"),
    Attempt(Status.PASSED, 2.0, "test.log"),
)


def test_junit_is_xml_whatever_a_test_prints(cell: Callable[..., Result]) -> None:
    odd = 'a "quoted" <reason> & \x00\x1b[31mcolour\x1b[0m\ud800'
    results = [
        cell("passed"),
        cell("failed", "rootless", failure="test", reason=odd),
        cell("skipped", "c", reason="no"),
    ]

    suite = ET.fromstring(junit(MATRIX, results, Path("nowhere")).encode())[0]

    assert suite.attrib == {"name": "//t:m", "tests": "3", "failures": "1", "skipped": "1"}
    assert [case.attrib["name"] for case in suite] == [result.action.title for result in results]
    failure = suite[1].find("failure")
    assert failure is not None
    assert 'a "quoted" <reason> & [31mcolour' in failure.attrib["message"]
    assert [one.attrib["value"] for one in suite[1].iter("property")] == ["rootless", "gzip", "false"]


def test_junit_has_a_flaky_cell_among_those_that_passed(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [cell("flaky", failure="infrastructure", reason="why", ran=CellReport(TWICE)), cell("passed", "c")]
    log = tmp_path / results[0].action.title / "attempt_1/test.log"
    log.parent.mkdir(parents=True)
    log.write_text("it <died>\n")

    suite = ET.fromstring(junit(MATRIX, results, tmp_path).encode())[0]

    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("2", "0", "0")
    assert [[child.tag for child in case] for case in suite] == [["properties", "flakyFailure"], ["properties"]]
    flaky = suite[0].find("flakyFailure")
    assert flaky is not None
    assert flaky.attrib == {"type": "infrastructure", "message": "buildkitd ended"}
    assert [(one.tag, one.text) for one in flaky] == [("stackTrace", "buildkitd ended"), ("system-out", "it <died>\n")]


def test_junit_has_each_attempt_of_a_cell_that_never_passed(cell: Callable[..., Result], tmp_path: Path) -> None:
    attempts = tuple(
        Attempt(Status.FAILED, 1.0, f"attempt_{n}/test.log", FailureClass.TEST, f"number {n}") for n in (1, 2, 3)
    )
    results = [cell("failed", failure="test", reason="number 3", ran=CellReport(attempts))]

    suite = ET.fromstring(junit(MATRIX, results, tmp_path).encode())[0]

    assert [(one.tag, one.attrib.get("message")) for one in suite[0]] == [
        ("properties", None),
        ("failure", "number 3"),
        ("rerunFailure", "number 1"),
        ("rerunFailure", "number 2"),
    ]

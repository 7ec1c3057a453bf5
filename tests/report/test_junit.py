"""The results of a matrix as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from bkrules.execution.result import CellReport, Result
from bkrules.label import Label
from bkrules.report.junit import junit

MATRIX = Label("t", "m")


def test_junit_is_xml_whatever_a_test_prints(cell: Callable[..., Result]) -> None:
    odd = 'a "quoted" <reason> & \x00\x1b[31mcolour\x1b[0m\ud800'
    results = [
        cell("passed"),
        cell("failed", "rootless", failure="test", reason=odd),
        cell("skipped", "c", reason="no"),
    ]

    suite = ET.fromstring(junit(MATRIX, results).encode())[0]

    assert suite.attrib == {"name": "//t:m", "tests": "3", "failures": "1", "skipped": "1"}
    assert [case.attrib["name"] for case in suite] == [result.action.title for result in results]
    failure = suite[1].find("failure")
    assert failure is not None
    assert 'a "quoted" <reason> & [31mcolour' in failure.attrib["message"]
    assert [one.attrib["value"] for one in suite[1].iter("property")] == ["rootless", "gzip", "false"]


def test_junit_has_a_flaky_cell_among_those_that_passed(cell: Callable[..., Result]) -> None:
    results = [cell("flaky", failure="infrastructure", reason="why", ran=CellReport(attempts=2)), cell("passed", "c")]

    suite = ET.fromstring(junit(MATRIX, results).encode())[0]

    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("2", "0", "0")
    assert [[child.tag for child in case] for case in suite] == [["properties"]] * 2

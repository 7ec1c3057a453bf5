"""Merge the reports of several shards of a matrix into the report of the matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from bkrules import errors
from bkrules.errors import NOTHING_RAN, BkError, UsageError

_WORST_FIRST = (
    errors.INTERRUPTED,
    errors.BUILD_FAILED,
    errors.TESTS_FAILED,
    errors.REMOTE_FAILED,
    errors.MACHINE_LACKS,
    errors.NOTHING_RAN,
)


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one report with the cells of several reports of the same matrix.

    Raises UsageError for reports that do not belong together, and BkError with exit code 4 when a declared cell is
    missing.
    """
    for name, values in (
        ("label", {report["label"] for report in reports}),
        ("partition", {str(report["selection"]["partition"]) for report in reports}),
    ):
        if len(values) > 1:
            raise UsageError(
                "not-one-run", f"these reports have different values of {name!r}: {', '.join(sorted(values))}"
            )
    cells = [cell for report in reports for cell in report["cells"]]
    names = [cell["name"] for cell in cells]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError("not-one-run", f"{twice[0]} is in two of these reports")
    declared = reports[0]["selection"]["declared"]
    selected = sum(report["selection"]["selected"] for report in reports)
    if selected < declared:
        error = BkError("nothing-ran", f"{declared - selected} of {declared} declared cells are in no report")
        error.hint = "a shard is missing, or ended before it wrote its report"
        error.exit_code = NOTHING_RAN
        raise error
    codes = {report["exit_code"] for report in reports}
    summary: dict[str, int] = {}
    for report in reports:
        for word, count in report["summary"].items():
            summary[word] = summary.get(word, 0) + count
    return {
        **reports[0],
        "exit_code": next((code for code in _WORST_FIRST if code in codes), max(codes)),
        "selection": {"declared": declared, "selected": selected, "by": [], "partition": None},
        "summary": summary,
        "cells": sorted(cells, key=lambda cell: str(cell["name"])),
    }


def merged_junit(texts: Sequence[str]) -> str:
    """Return one JUnit file with all suites."""
    root = ET.Element("testsuites")
    for text in texts:
        root.extend(ET.fromstring(text.encode()))
    return ET.tostring(root, encoding="unicode", xml_declaration=True)

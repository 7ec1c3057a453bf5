"""Merge the reports of several shards of a matrix, or of the jobs of a plan, into the report of each matrix."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bkrules import errors
from bkrules.errors import NOTHING_RAN, BkError, UsageError
from bkrules.model.status import Status

_WORST_FIRST = (
    errors.INTERRUPTED,
    errors.BUILD_FAILED,
    errors.TESTS_FAILED,
    errors.REMOTE_FAILED,
    errors.MACHINE_LACKS,
    errors.NOTHING_RAN,
)
_RUN = re.compile(r"/run_\d+_of_\d+\]$")
Report = dict[str, Any]


def merged(reports: Sequence[Report]) -> Report:
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
        "exit_code": _worst(codes),
        "selection": {"declared": declared, "selected": selected, "by": [], "partition": None},
        "summary": summary,
        "cells": sorted(cells, key=lambda cell: str(cell["name"])),
    }


@dataclass(frozen=True)
class Merged:
    """The merged reports of a plan by the labels of their matrices. `lacks` tells which jobs reported too little."""

    reports: Mapping[str, Report]
    exit_code: int
    lacks: Sequence[str]
    missing: Sequence[Report]


def merged_plan(
    planned: Mapping[str, Report], jobs: Sequence[Sequence[str]], plan: str, reports: Mapping[str, Report]
) -> Merged:
    """Return the reports of a plan: the `planned` ones, with the cells of `jobs` as the `reports` have them by their files.

    `plan` is the id of the plan. A cell that no report has stays `not run`, and tells which job should have run it. Raises
    UsageError for a report of another plan, and for a cell that is in two reports or in none of the jobs.
    """
    job_of = {label: number for number, labels in enumerate(jobs, 1) for label in labels}
    files: dict[str, str] = {}
    ran: dict[str, list[Report]] = {}
    for file, report in reports.items():
        if report["selection"]["partition"] != plan:
            hint = "merge the reports of the jobs of one plan, and of no other build"
            raise UsageError("not-one-run", f"{file} is not the report of a job of this plan", hint=hint)
        for cell in report["cells"]:
            label = cell["label"]
            point = _RUN.sub("]", label)
            if point not in job_of:
                raise UsageError("not-one-run", f"{file} has the cell {label}, which is in no job of the plan")
            if label in files:
                hint = "name the report of each job once"
                raise UsageError("not-one-run", f"{label} is in two reports: {files[label]} and {file}", hint=hint)
            files[label] = file
            ran.setdefault(point, []).append(cell)
    missing: list[Report] = []
    merged: dict[str, Report] = {}
    for matrix, report in planned.items():
        cells: list[Report] = []
        for cell in report["cells"]:
            number = job_of.get(cell["label"])
            if number is None:
                cells.append(cell)
            elif cell["label"] in ran:
                cells += ran[cell["label"]]
            else:
                missing.append({**cell, "reason": f"job {number} of {len(jobs)} has not reported it"})
                cells.append(missing[-1])
        merged[matrix] = {**report, "cells": sorted(cells, key=lambda cell: str(cell["name"]))}
    codes = {report["exit_code"] for report in reports.values()} | ({NOTHING_RAN} if missing else set())
    code = _worst(codes)
    whole = {matrix: _counted(report, code) for matrix, report in merged.items()}
    return Merged(whole, code, _lacks(jobs, ran), missing)


def _worst(codes: set[int]) -> int:
    return next((code for code in _WORST_FIRST if code in codes), max(codes, default=errors.SUCCESS))


def _counted(report: Report, code: int) -> Report:
    """Return a report with the counts of its cells."""
    counts: dict[str, int] = {}
    for cell in report["cells"]:
        counts[cell["status"]] = counts.get(cell["status"], 0) + 1
    summary = {**counts, "cached": sum(bool(cell["cached"]) for cell in report["cells"]), "total": len(report["cells"])}
    selection = {**report["selection"], "by": [], "partition": None}
    return {**report, "exit_code": code, "selection": selection, "summary": summary}


def _lacks(jobs: Sequence[Sequence[str]], ran: Mapping[str, Sequence[Report]]) -> list[str]:
    """Return a line for each job that did not report all of its cells."""
    lines = []
    for number, labels in enumerate(jobs, 1):
        lost = [label for label in labels if label not in ran]
        if not lost:
            continue
        who = f"job {number} of {len(jobs)}"
        cells = f"{lost[0]}{f' and {len(lost) - 1} more' if lost[1:] else ''}"
        lines.append(
            f"{who} has no report: {cells} did not run"
            if len(lost) == len(labels)
            else f"the report of {who} lacks {cells}"
        )
    return lines


def junit_of(cells: Sequence[Report]) -> str:
    """Return cells that no job reported as JUnit XML: those with a result, and the others as errors."""
    root = ET.Element("testsuites")
    suites: dict[str, ET.Element] = {}
    for cell in cells:
        matrix = cell["label"].partition("[")[0]
        if matrix not in suites:
            suites[matrix] = ET.SubElement(root, "testsuite", name=matrix)
        time = f"{cell['seconds']:.3f}"
        case = ET.SubElement(suites[matrix], "testcase", classname=matrix, name=cell["name"], time=time)
        if cell["status"] == Status.NOT_RUN:
            ET.SubElement(case, "error", message=cell["reason"])
        elif cell["status"] == Status.SKIPPED:
            ET.SubElement(case, "skipped", message=cell["reason"] or "")
    for suite in suites.values():
        for name, kind in (("tests", "testcase"), ("errors", "testcase/error"), ("skipped", "testcase/skipped")):
            suite.set(name, str(len(suite.findall(kind))))
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def merged_junit(texts: Sequence[str]) -> str:
    """Return one JUnit file with all suites."""
    root = ET.Element("testsuites")
    for text in texts:
        root.extend(ET.fromstring(text.encode()))
    return ET.tostring(root, encoding="unicode", xml_declaration=True)

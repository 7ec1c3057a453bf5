"""The reports of shards become the report of their matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bkrules import errors
from bkrules.errors import BkError, UsageError
from bkrules.report.merge import junit_of, merged, merged_junit, merged_plan


def report(*names: str, code: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "label": "//t:m",
        "exit_code": code,
        "selection": {"declared": 3, "selected": len(names), "by": ["--shard=1/2"], "partition": "abc"},
        "summary": {"passed": len(names), "cached": 1, "total": len(names)},
        "cells": [{"name": name, "status": "passed"} for name in names],
        **more,
    }


def test_all_cells_are_in_one_report_in_the_order_of_their_names() -> None:
    document = merged([report("c"), report("b", "a")])
    assert [cell["name"] for cell in document["cells"]] == ["a", "b", "c"]
    assert document["summary"] == {"passed": 3, "cached": 2, "total": 3}
    assert document["selection"] == {"declared": 3, "selected": 3, "by": [], "partition": None}


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 3), 3), ((3, 1), 1), ((36, 3), 3), ((8, 1), 8), ((4, 36), 36), ((0, 4), 4)],
)
def test_the_exit_code_is_that_of_the_worst(codes: tuple[int, int], worst: int) -> None:
    assert merged([report("a", code=codes[0]), report("b", "c", code=codes[1])])["exit_code"] == worst


def test_a_missing_shard_is_an_error() -> None:
    with pytest.raises(BkError, match="1 of 3 declared cells are in no report") as caught:
        merged([report("a", "b")])
    assert caught.value.exit_code == errors.NOTHING_RAN


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report("c", label="//t:other"), "different values of 'label'"),
        (
            report("c", selection={"declared": 3, "selected": 1, "by": [], "partition": "xyz"}),
            "of 'partition': abc, xyz",
        ),
        (report("a"), "a is in two of these reports"),
    ],
)
def test_reports_that_do_not_belong_together(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        merged([report("a", "b"), other])
    assert message in caught.value.message


def test_junit_files_are_one() -> None:
    suites = [
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite name="{n}"/></testsuites>\n' for n in "ab"
    ]
    root = ET.fromstring(merged_junit(suites))
    assert [suite.attrib["name"] for suite in root] == ["a", "b"]


def cell(name: str, status: str = "passed", *, cached: bool = False, **more: Any) -> dict[str, Any]:
    label = f"//t:m[{name}]"
    return {"name": name, "label": label, "status": status, "cached": cached, "seconds": 1.0, "reason": None, **more}


JOBS = (("//t:m[b]", "//t:m[c]"), ("//t:m[d]",))
PLANNED = {"//t:m": report(cells=[cell("a", cached=True), *(cell(name, "not run") for name in "bcd")])}


def of_job(*cells: dict[str, Any], code: int = 0, plan: str = "abc") -> dict[str, Any]:
    selection = {"declared": 4, "selected": len(cells), "by": [], "partition": plan}
    return report(code=code, selection=selection, cells=list(cells))


def test_a_plan_and_its_jobs_have_all_cells_once() -> None:
    reports = {"1": of_job(cell("c"), cell("b", "failed"), code=3), "2": of_job(cell("d", cached=True))}
    whole = merged_plan(PLANNED, JOBS, "abc", reports)
    document = whole.reports["//t:m"]
    assert [(one["name"], one["status"]) for one in document["cells"]] == [
        ("a", "passed"),
        ("b", "failed"),
        ("c", "passed"),
        ("d", "passed"),
    ]
    assert document["summary"] == {"passed": 3, "failed": 1, "cached": 2, "total": 4}
    assert (whole.exit_code, document["exit_code"], whole.lacks, whole.missing) == (3, 3, [], [])


def test_all_runs_of_a_cell_take_the_place_of_the_planned_one() -> None:
    runs = [cell(f"d/run_{number}_of_2") for number in (1, 2)]
    whole = merged_plan(PLANNED, JOBS, "abc", {"1": of_job(cell("b"), cell("c")), "2": of_job(*runs)})
    assert [one["name"] for one in whole.reports["//t:m"]["cells"]] == ["a", "b", "c", "d/run_1_of_2", "d/run_2_of_2"]


def test_jobs_that_report_too_little_are_named() -> None:
    whole = merged_plan(PLANNED, JOBS, "abc", {"1": of_job(cell("c"))})
    assert whole.lacks == ["the report of job 1 of 2 lacks //t:m[b]", "job 2 of 2 has no report: //t:m[d] did not run"]
    assert whole.exit_code == errors.NOTHING_RAN
    assert [(one["name"], one["status"]) for one in whole.missing] == [("b", "not run"), ("d", "not run")]
    root = ET.fromstring(junit_of([PLANNED["//t:m"]["cells"][0], *whole.missing]))
    assert [case.get("name") for case in root.iter("testcase")] == ["a", "b", "d"]
    assert [error.get("message") for error in root.iter("error")] == [
        "job 1 of 2 has not reported it",
        "job 2 of 2 has not reported it",
    ]
    lost = merged_plan(PLANNED, JOBS, "abc", {})
    assert lost.lacks[0] == "job 1 of 2 has no report: //t:m[b] and 1 more did not run"


def test_a_plan_without_jobs_is_whole() -> None:
    whole = merged_plan({"//t:m": report(cells=[cell("a", cached=True)])}, (), "abc", {})
    assert (whole.exit_code, whole.lacks) == (0, [])
    assert whole.reports["//t:m"]["summary"] == {"passed": 1, "cached": 1, "total": 1}


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ({"1": of_job(cell("b"), plan="xyz")}, "1 is not the report of a job of this plan"),
        ({"1": of_job(cell("b")), "2": of_job(cell("b"))}, "//t:m[b] is in two reports: 1 and 2"),
        ({"1": of_job(cell("b"), cell("b"))}, "//t:m[b] is in two reports: 1 and 1"),
        ({"1": of_job(cell("a"))}, "1 has the cell //t:m[a], which is in no job of the plan"),
    ],
)
def test_reports_that_are_not_of_the_plan(reports: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        merged_plan(PLANNED, JOBS, "abc", reports)
    assert message in caught.value.message

"""The reports of shards become the report of their matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bkrules import errors
from bkrules.errors import BkError, UsageError
from bkrules.report.merge import merged, merged_junit


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

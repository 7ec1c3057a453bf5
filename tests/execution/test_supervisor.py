"""What a cell's end says about its result; the supervisor's work is seen in the cells of the integration tests."""

from __future__ import annotations

from typing import Any

import pytest

from bkrules.cell.supervisor import _verdict

LIMITS = {"memory": 512 << 20, "pids": 100, "disk": 8 << 20}
PASSED = {"status": "passed"}
FAILED = {"status": "failed", "class": "test", "reason": "assert 1 == 2"}
STALLED = {"status": "timed out", "class": "timeout", "reason": "it took more than 5 s"}
SILENT = {"status": "failed", "class": "infrastructure"}
MEMORY = "out of memory: 2 killed at the cell's limit of 512 MiB"
PIDS = "the cell's limit of 100 processes was met"


@pytest.mark.parametrize("result", [PASSED, FAILED, STALLED])
def test_a_leftover_fails_whatever_it_is_the_end_of(result: dict[str, Any]) -> None:
    verdict = _verdict(result, ["process 7 (sleep)", "mount /x"], {"memory": 1, "pids": 1}, LIMITS)

    assert verdict == {
        "status": "failed",
        "class": "leak",
        "reason": "the cell leaked: process 7 (sleep); mount /x",
    }


@pytest.mark.parametrize("hits", [{}, {"memory": 0, "pids": 0}, {"memory": 2, "pids": 1}])
def test_a_test_that_passed_near_its_limits_has_passed(hits: dict[str, int]) -> None:
    assert _verdict(PASSED, [], hits, LIMITS) == {}


@pytest.mark.parametrize("hits", [{}, {"pids": 0}, {"memory": 0, "pids": 0}])
def test_a_failure_below_its_limits_is_a_failure_as_it_was(hits: dict[str, int]) -> None:
    assert _verdict(FAILED, [], hits, LIMITS) == {}


@pytest.mark.parametrize(
    ("result", "hits", "reason"),
    [
        (FAILED, {"memory": 2, "pids": 0}, f"{MEMORY}; assert 1 == 2"),
        (FAILED, {"memory": 2, "pids": 3}, f"{MEMORY}; assert 1 == 2"),
        (FAILED, {"memory": 0, "pids": 3}, f"{PIDS}; assert 1 == 2"),
        (STALLED, {"pids": 3}, f"{PIDS}; it took more than 5 s"),
        (SILENT, {"memory": 2}, MEMORY),
    ],
)
def test_a_limit_that_was_met_is_why_a_cell_failed(result: dict[str, Any], hits: dict[str, int], reason: str) -> None:
    assert _verdict(result, [], hits, LIMITS) == {"class": "resources", "reason": reason}

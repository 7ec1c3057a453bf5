"""What a cell's end says about its result; the supervisor's work is seen in the cells of the integration tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bkrules.cell.protocol import CellResult
from bkrules.cell.supervisor import _verdict
from bkrules.model.parameters import CellLimits
from bkrules.model.status import FailureClass, Status

LIMITS = CellLimits(memory=512 << 20, pids=100, disk=8 << 20)
PASSED = CellResult(Status.PASSED)
FAILED = CellResult(Status.FAILED, FailureClass.TEST, "assert 1 == 2")
STALLED = CellResult(Status.TIMED_OUT, FailureClass.TIMEOUT, "it took more than 5 s")
SILENT = CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE)
MEMORY = "out of memory: 2 killed at the cell's limit of 512 MiB"
PIDS = "the cell's limit of 100 processes was met"


@pytest.mark.parametrize("result", [PASSED, FAILED, STALLED])
def test_a_leftover_fails_whatever_it_is_the_end_of(result: CellResult) -> None:
    verdict = _verdict(result, ["process 7 (sleep)", "mount /x"], {"memory": 1, "pids": 1}, LIMITS)

    assert verdict == CellResult(Status.FAILED, FailureClass.LEAK, "the cell leaked: process 7 (sleep); mount /x")


@pytest.mark.parametrize("hits", [{}, {"memory": 0, "pids": 0}, {"memory": 2, "pids": 1}])
def test_a_test_that_passed_near_its_limits_has_passed(hits: dict[str, int]) -> None:
    assert _verdict(PASSED, [], hits, LIMITS) == PASSED


@pytest.mark.parametrize("hits", [{}, {"pids": 0}, {"memory": 0, "pids": 0}])
def test_a_failure_below_its_limits_is_a_failure_as_it_was(hits: dict[str, int]) -> None:
    assert _verdict(FAILED, [], hits, LIMITS) == FAILED


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
def test_a_limit_that_was_met_is_why_a_cell_failed(result: CellResult, hits: dict[str, int], reason: str) -> None:
    expected = replace(result, failure=FailureClass.RESOURCES, reason=reason)
    assert _verdict(result, [], hits, LIMITS) == expected

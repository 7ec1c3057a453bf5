"""Reports of Go's race detector in the logs of a failed cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.cell.programs import out_of
from bkrules.cell.races import race_in
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import ProgramResult

LINE = "=" * 18
REPORT = f"""time="2026-11-29T21:02:23Z" level=debug msg="session finished: <nil>"
{LINE}
WARNING: DATA RACE
Write at 0x00c0000a2018 by goroutine 7:
  example.test/it/solver.(*jobs).add()
      /src/solver/jobs.go:6 +0x3c

Previous read at 0x00c0000a2018 by main goroutine:
  main.main()
      /src/main.go:7 +0xb8

Goroutine 7 (running) created at:
  main.main()
      /src/main.go:5 +0xae
{LINE}
{LINE}
WARNING: DATA RACE
Write at 0x00c0000a2020 by goroutine 9:
  main.second()
      /src/main.go:9 +0x3c
{LINE}
"""


def test_both_functions_of_the_first_race_are_named(tmp_path: Path) -> None:
    (tmp_path / "buildkitd.log").write_text(REPORT)

    assert race_in(tmp_path) == "a data race in buildkitd: example.test/it/solver.(*jobs).add() and main.main()"


def test_the_log_of_a_daemon_that_a_test_in_go_prints(tmp_path: Path) -> None:
    lines = "".join(f"    sandbox.go:57: {line}\n" for line in REPORT.splitlines())
    (tmp_path / "test.log").write_text(lines)

    assert race_in(tmp_path) == "a data race in test: example.test/it/solver.(*jobs).add() and main.main()"


def test_a_report_without_its_end_is_a_race_too(tmp_path: Path) -> None:
    (tmp_path / "runc.log").write_text("WARNING: DATA RACE")

    assert race_in(tmp_path) == "a data race in runc"


@pytest.mark.parametrize("failure", [FailureClass.INFRASTRUCTURE, FailureClass.TEST, FailureClass.TIMEOUT])
def test_a_race_is_a_failure_of_the_test_which_does_not_run_again(tmp_path: Path, failure: FailureClass) -> None:
    result = ProgramResult(Status.FAILED, failure, "buildkitd ended during the test: exit status 66")

    (tmp_path / "buildkitd.log").write_text(REPORT)

    found = out_of(result, tmp_path)
    if failure == FailureClass.TIMEOUT:
        assert found == result
    else:
        assert found.failure == FailureClass.TEST
        assert found.reason.startswith("a data race in buildkitd: ")
        assert found.reason.endswith("main.main(); buildkitd ended during the test: exit status 66")

"""What results come to: the exit code."""

from __future__ import annotations

from collections.abc import Callable

from bkrules.execution.result import Result
from bkrules.report.build_result import BuildResult


def test_exit_codes(cell: Callable[..., Result], step: Callable[..., Result]) -> None:
    good, bad = cell("passed"), cell("failed", failure="test")
    lacking, skipped, not_run = cell("skipped", failure="machine"), cell("skipped", failure="skip"), cell("not run")
    broken, without_compiler = step("failed", "build"), step("failed", "machine")

    def code(*results: Result, interrupted: bool = False) -> int:
        return BuildResult(results, 0.0, interrupted).exit_code

    assert code(good, step("passed"), skipped) == 0
    assert code(good, bad) == code(good, cell("timed out", failure="timeout")) == 3
    assert code(good, lacking) == code(without_compiler, not_run) == 36
    assert code(good, not_run) == 4
    assert code(broken, bad, lacking) == code(broken, without_compiler) == 1
    assert code(bad, lacking, not_run) == 3
    assert code(broken, bad, interrupted=True) == 8


def test_what_is_flaky_has_passed_and_what_leaked_has_not(
    cell: Callable[..., Result], step: Callable[..., Result]
) -> None:
    good, flaky, bad = cell("passed"), cell("flaky", failure="infrastructure"), cell("failed", failure="leak")

    assert BuildResult((good, flaky), 0.0).exit_code == 0
    assert BuildResult((flaky, bad), 0.0).exit_code == 3
    assert BuildResult((good, bad), 0.0, leaks=("a mount",)).exit_code == 1
    assert BuildResult((good,), 0.0, leaks=("a mount",)).exit_code == 1


def test_a_full_disk_is_the_machines_for_a_cell_and_for_a_step(
    cell: Callable[..., Result], step: Callable[..., Result]
) -> None:
    full = cell("failed", failure="machine", reason="No space left on device")

    assert BuildResult((cell("passed"), full), 0.0).exit_code == 36
    assert BuildResult((step("failed", "machine"), cell("not run")), 0.0).exit_code == 36
    assert BuildResult((full, cell("failed", failure="test")), 0.0).exit_code == 3


def test_a_required_cache_that_failed_is_told_from_the_machine(
    cell: Callable[..., Result], step: Callable[..., Result]
) -> None:
    lost = cell("skipped", failure="machine", reason="remote cache http://host: connection refused")

    assert BuildResult((cell("passed"), lost), 0.0, remote_failed=True).exit_code == 34
    assert BuildResult((cell("passed"),), 0.0, fault="status 507", remote_failed=True).exit_code == 34
    assert BuildResult((lost, cell("failed", failure="test")), 0.0, remote_failed=True).exit_code == 3
    assert BuildResult((step("failed", "build"), lost), 0.0, remote_failed=True).exit_code == 1

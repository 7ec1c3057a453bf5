"""The results of a build, and their summary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bkrules import errors
from bkrules.execution.result import Result
from bkrules.model.label import Label
from bkrules.model.selected import Selected
from bkrules.model.status import BAD, FailureClass, Status
from bkrules.system.kernel import SERIES


@dataclass(frozen=True)
class BuildResult:
    """The results of a build, in the order of its plan.

    `fault` is why a required remote cache, or a disk, did not accept the results; `remote_failed` tells whether a required
    remote cache failed at all, or an engine; `selected` names the selected cells, when not all were. `kernel_key` is how
    much of the kernel is in the keys of cells. `up_to_date` is the number of actions that were skipped as up to date, and
    the seconds that they took when they ran. `phases` are the seconds of each phase of the build by its name, in their
    order.
    """

    results: tuple[Result, ...]
    seconds: float
    interrupted: bool = False
    leaks: tuple[str, ...] = ()
    fault: str = ""
    remote_failed: bool = False
    selected: Selected | None = None
    up_to_date: tuple[int, float] = (0, 0.0)
    kernel_key: str = SERIES
    phases: tuple[tuple[str, float], ...] = ()

    @property
    def cells(self) -> list[Result]:
        """The results of test cells."""
        return [result for result in self.results if result.action.cell is not None]

    @property
    def exit_code(self) -> int:
        """Bazel's exit code for the build; of several, the first of: interrupted, build, tests, remote, machine, nothing ran.

        Results that the remote cache ended are of the class MACHINE.
        """
        if self.interrupted:
            return errors.INTERRUPTED
        failures = [result for result in self.results if result.status == Status.FAILED]
        broken = {
            result.failure for result in failures if result.action.cell is None or result.failure == FailureClass.PLUGIN
        }
        if broken - {FailureClass.MACHINE} or self.leaks:
            return errors.BUILD_FAILED
        if any(result.status in BAD and result.failure != FailureClass.MACHINE for result in self.cells):
            return errors.TESTS_FAILED
        if self.remote_failed:
            return errors.REMOTE_FAILED
        if broken or self.fault or any(result.failure == FailureClass.MACHINE for result in self.cells):
            return errors.MACHINE_LACKS
        if any(result.status == Status.NOT_RUN for result in self.results):
            return errors.NOTHING_RAN
        return errors.SUCCESS


def by_matrix(results: Iterable[Result]) -> dict[Label, list[Result]]:
    """Return the results of cells by their matrix."""
    matrices: dict[Label, list[Result]] = {}
    for result in results:
        if result.action.cell is not None:
            matrices.setdefault(result.action.cell.matrix, []).append(result)
    return matrices


def by_status(results: Iterable[Result]) -> dict[str, int]:
    """Return the number of results with each status, in the order of their first occurrence."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return counts

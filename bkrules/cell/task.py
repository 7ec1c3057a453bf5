"""The task of a cell, which bk's own hooks find in `RunningCell.parameters`, and its result in both forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bkrules.cell.protocol import CellResult, CellSpec, Program, TestRequest
from bkrules.model.parameters import UNCHANGED, WorkerUpdate
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.daemon import Daemons

if TYPE_CHECKING:
    from bkrules.testing.sandbox import Before

NOTHING = CellResult(Status.FAILED)


@dataclass(frozen=True)
class Task:
    """The commands or the test of a cell, and the changes to its worker by axis values.

    `extra_workers` are the ids of those that it may start. `before` is the state of a shared worker before the test.
    `is_kept`: a user looks at the cell when the test has failed. `terminal` is the descriptor of a user's terminal, on which
    the test runs under pdb.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    test: TestRequest | None = None
    update: WorkerUpdate = UNCHANGED
    extra_workers: tuple[str, ...] = ()
    before: Before | None = None
    is_kept: bool = False
    terminal: int | None = None


def task_of(cell: RunningCell) -> Task:
    """Return the task of a cell."""
    assert isinstance(cell.parameters, Task)
    return cell.parameters


def running_cell(spec: CellSpec, daemons: Daemons) -> RunningCell:
    """Return the cell as hooks see it."""
    axes = {axis: one.value for axis, one in spec.test.axes.items()} if spec.test else {}
    is_kept = spec.program == Program.KEPT
    extra = tuple(one.id for one in spec.extra_workers)
    task = Task(spec.commands, spec.test, spec.update, extra, is_kept=is_kept)
    is_test = is_kept or spec.program == Program.DEBUGGED
    program = Program.TEST if is_test else spec.program  # the test must not see a difference
    return RunningCell(spec.name, spec.worker, program, axes, spec.timeout, daemons, task)


def on_terminal(cell: RunningCell, terminal: int) -> RunningCell:
    """Return a cell whose test runs under pdb on a terminal."""
    return replace(cell, parameters=replace(task_of(cell), terminal=terminal))


def with_test(cell: RunningCell, test: TestRequest, before: Before) -> RunningCell:
    """Return a shared cell as hooks see it while it runs a test."""
    task = replace(task_of(cell), test=test, before=before)
    axes = {axis: one.value for axis, one in test.axes.items()}
    return replace(cell, name=test.name, worker=test.worker, axes=axes, timeout=test.timeout, parameters=task)


def cell_result(result: ProgramResult, before: CellResult = NOTHING) -> CellResult:
    """Return the result of a program as that of its cell, with the facts known `before`."""
    return replace(
        before,
        status=Status(result.status),
        failure=FailureClass(result.failure),
        reason=result.reason,
        missing=result.missing or before.missing,
    )


def program_result(result: CellResult) -> ProgramResult:
    """Return the result of a cell as hooks see it."""
    return ProgramResult(result.status, result.failure, result.reason, result.missing)

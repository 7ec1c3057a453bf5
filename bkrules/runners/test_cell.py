"""The runner of TestCell: one test, on one worker, at one point of the axes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bkrules.cache import atomic
from bkrules.cell.protocol import CellResult, Program
from bkrules.errors import ActionFailed
from bkrules.execution import timeline
from bkrules.execution.cell_folder import empty
from bkrules.execution.context import RunContext
from bkrules.execution.layout import ATTEMPT, KEY, PREVIOUS, RESULT, TIMELINE
from bkrules.execution.result import Attempt, CellReport, Outcome
from bkrules.mirror.registry import REGISTRY
from bkrules.model.action import Action, Node
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import CLASSES, ProgramResult
from bkrules.plugin.spec import hookimpl
from bkrules.rules.cells import SHARED
from bkrules.runners.missing_files import hint_of, image_hint_of
from bkrules.runners.open_cell import run_in_cell
from bkrules.runners.preflight import check_machine
from bkrules.sandbox import outputs
from bkrules.testing.pytest_text import REPORTS

SANDBOXES = 2
"""The number of runs of a cell while its infrastructure fails."""
FLAKY = 3
"""The number of runs of a flaky test; Bazel's number."""


OWN_FILES = ("test.log", REPORTS, RESULT, TIMELINE, KEY, PREVIOUS)
"""The files and folders that bk writes into a cell's folder, or reads there, by their names."""
_SHOWN = 5


def run_test_cell(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Run the cell and keep its logs in `bk-out`. Raises MachineLacks when the worker cannot run here.

    A test that passes at a later attempt is flaky. The logs of earlier attempts are kept in the folders `attempt_1` and
    so on. No key covers the limit of attempts, since only results of a first attempt are cached: a pass, and a skip by
    the test itself, which depends on what the key covers like a pass.
    """
    assert action.cell is not None
    check_machine(action, context)
    folder = context.cell_folder(action)
    empty(folder)
    most = context.test_attempts or (FLAKY if action.cell.flaky else 1)
    attempts: list[Attempt] = []
    while True:
        began = time.monotonic()
        result = _run(action, inputs, context, folder)
        seconds = time.monotonic() - began
        status, failure, reason = result.status, result.failure, result.reason
        attempts.append(Attempt(status, seconds, "test.log", failure, reason))
        if not may_try_again(attempts, most):
            break
        before = [f"{ATTEMPT}{number}" for number in range(1, len(attempts))]
        aside = f"{ATTEMPT}{len(attempts)}"
        _put_aside(folder, aside, [*before, PREVIOUS])
        attempts[-1] = replace(attempts[-1], log=f"{aside}/test.log")
    if status == Status.PASSED and len(attempts) > 1:
        status, failure = Status.FLAKY, attempts[-2].failure
        reason = f"passed at attempt {len(attempts)}, after: {attempts[-2].reason}"
    egress = tuple((item.who, item.what) for item in result.egress)
    report = CellReport(tuple(attempts), egress, result.unlimited, result.tainted, result.unmet)
    made = {
        name: str(folder / name) for name in action.outputs if name not in action.optional or (folder / name).exists()
    }
    is_own_skip = status == Status.SKIPPED and failure == FailureClass.SKIP and len(attempts) == 1
    return Outcome(status, made, reason, failure, report, most=_disk(action), is_own_skip=is_own_skip)


class OwnClasses:
    """bk's own classes of failures: those that cells report."""

    @hookimpl
    def bk_classify_failure(self, result: ProgramResult) -> str:
        """Return the class of the result."""
        return result.failure


_OWN = OwnClasses()


def classified(result: CellResult, action: Action, context: RunContext, logs: Path) -> CellResult:
    """Return the result of an attempt with the class that plugins give its failure. Raises BkError for an unknown class."""
    known = ("", *CLASSES)
    if result.status != Status.FAILED or result.failure not in known:
        return result
    hooks = context.plugins.hooks
    hooks.add(_OWN)
    attempt = ProgramResult(Status.FAILED, result.failure, result.reason)
    answer = hooks.call("bk_classify_failure", cell=action.cell, result=attempt, logs=logs)
    if answer not in known:
        raise hooks.wrong("bk_classify_failure", answer, f"return one of {', '.join(CLASSES)}, or None")
    return replace(result, failure=FailureClass(answer))


def may_try_again(attempts: Sequence[Attempt], most: int) -> bool:
    """Return whether a failed cell runs again, by the class of its last failure, which has a separate count.

    A failure of the infrastructure gets one more sandbox, a failed test as many attempts as requested. A timeout is
    final, since the cell would take as long again.
    """
    last = attempts[-1]
    allowed = {FailureClass.INFRASTRUCTURE: SANDBOXES, FailureClass.TEST: most}.get(last.failure, 1)
    return last.status == Status.FAILED and sum(attempt.failure == last.failure for attempt in attempts) < allowed


def _run(action: Action, inputs: Mapping[str, Node], context: RunContext, folder: Path) -> CellResult:
    """Run one attempt. Return the cell's result."""
    folder.mkdir(parents=True, exist_ok=True)
    if parameters_of(action, TestCell).isolation == SHARED:
        result = _with_registry(lambda: context.for_cells().shared.run(action, inputs, context, folder))
    else:
        result = _with_registry(lambda: run_in_cell(action, inputs, context, str(folder), Program.TEST))
    result = _checked(_with_hint(result, action, context), folder, _disk(action))
    result = classified(result, action, context, folder)
    (folder / RESULT).write_text(json.dumps(result.to(), sort_keys=True))
    if result.status not in (Status.PASSED, Status.SKIPPED):
        timeline.write(folder)
    return result


def _with_hint(result: CellResult, action: Action, context: RunContext) -> CellResult:
    """Return the result with a hint about files of the workspace, or an image, that the test did not find in its cell."""
    names, result = result.missing, replace(result, missing=())
    if result.status != Status.FAILED:
        return result
    inputs = dict(action.inputs)
    hint = hint_of(names, parameters_of(action, TestCell).module, context.out.parent, inputs) if names else ""
    hint = hint or image_hint_of(result.reason, inputs)
    return replace(result, reason=f"{result.reason}; {hint}") if hint else result


def _disk(action: Action) -> int:
    return parameters_of(action, TestCell).limits.disk


def _checked(result: CellResult, folder: Path, most: int) -> CellResult:
    """Return the result of a cell, after removing links out of its folder, and folders in the place of bk's files.

    A test that left such a file in /out has failed.
    """
    problems = outputs.clean(folder, most)
    for name in OWN_FILES:
        if (folder / name).is_dir():
            problems.append(f"{name} is a folder")
            outputs.remove_tree(folder / name)
    if problems and result.status == Status.PASSED:
        reason = f"the test left files in /out that cannot be kept: {'; '.join(problems[:_SHOWN])}"
        result = replace(result, status=Status.FAILED, failure=FailureClass.TEST, reason=reason)
    if not (folder / "test.log").exists():
        (folder / "test.log").write_text(result.detail or result.reason, errors="replace")
    return result


def _with_registry(run: Callable[[], CellResult]) -> CellResult:
    """Return the result of a cell. A registry that does not start is a failure of the cell's infrastructure like others."""
    try:
        return run()
    except ActionFailed as error:
        if error.reason != REGISTRY:
            raise
        detail = f"{error.message}\n{error.log}"
        return CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE, error.message, detail)


def _put_aside(folder: Path, name: str, staying: Sequence[str]) -> None:
    """Move the files of an attempt to a new folder in the cell's folder, except `staying`: earlier attempts, the key.

    A test may have created a file with such a name, so the whole folder moves, and those move back.
    """
    aside = Path(atomic.temporary(str(folder)))
    folder.rename(aside)
    folder.mkdir()
    for entry in staying:
        if (aside / entry).exists():
            (aside / entry).rename(folder / entry)
    aside.rename(folder / name)

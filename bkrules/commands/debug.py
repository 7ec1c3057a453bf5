"""`--pdb`: a test under pdb, in its cell, on the user's terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from bkrules import errors
from bkrules.build.analysis import Analysis
from bkrules.build.request import Options
from bkrules.build.session import CACHED, FOREVER, NothingFailed, session
from bkrules.cell.protocol import CellResult, Command
from bkrules.commands.parser import nothing
from bkrules.commands.terminal import attach
from bkrules.errors import MachineLacks, UsageError
from bkrules.model.action import Action
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.status import BAD
from bkrules.report.pytest_reports import PytestReports, read_reports


@dataclass(frozen=True)
class Debugged:
    """A test that a user debugged: the result of its cell, which no cache keeps, and pytest's reports on it."""

    result: CellResult
    reports: PytestReports | None = None

    @property
    def is_cached(self) -> bool:
        """Whether it did not run, since it has passed in an earlier build."""
        return self.result.reason == CACHED

    @property
    def has_quit(self) -> bool:
        """Whether the user has quit the debugger, as opposed to let the test continue."""
        return self.reports is not None and self.reports.exit_code == pytest.ExitCode.INTERRUPTED


def check_terminal() -> None:
    """Raise UsageError when there is no terminal to debug on."""
    if not (os.isatty(0) and os.isatty(1)):
        what = "--pdb needs a terminal: standard input and output are none"
        raise UsageError("no-terminal", what, hint="leave it out, or run the command on a terminal")


def is_debuggable(action: Action) -> bool:
    """Return whether an action is a cell with a test of pytest that may run."""
    if action.cell is None or action.cell.skip or action.mnemonic != "TestCell":
        return False
    return parameters_of(action, TestCell).program is None


def debug(analysis: Analysis, action: Action, options: Options) -> Debugged:
    """Run the test of a cell under pdb, on the terminal of the user. Raises NotBuilt, ActionFailed and MachineLacks."""
    try:
        with session(analysis, action, options, debugged=True) as opened:
            attach(opened.cell, Command((), "/src", {}))
            result = opened.cell.result(FOREVER)
            return Debugged(result, read_reports(opened.logs))
    except NothingFailed as found:
        return Debugged(found.result)


def debug_cells(analysis: Analysis, options: Options) -> int:
    """Debug one cell after the other, until the user quits. Return the exit code. Raises BkError."""
    check_terminal()
    actions = [action for action in analysis.wanted().values() if is_debuggable(action)]
    if not actions:
        raise nothing("no cell is a test of pytest, which --pdb is for", "programs and skipped cells have none")
    code = errors.SUCCESS
    for action in actions:
        print(f"RUNNING {action.title}", flush=True)
        try:
            done = debug(analysis, action, options)
        except MachineLacks as error:
            print(f"SKIPPED {action.title}: {error}", flush=True)
            code = code or error.exit_code
            continue
        said = "cached" if done.is_cached else done.result.reason
        print(f"{done.result.status.upper()} {action.title}{f': {said}' if said else ''}", flush=True)
        code = errors.TESTS_FAILED if done.result.status in BAD else code
        if done.has_quit:
            break
    return code

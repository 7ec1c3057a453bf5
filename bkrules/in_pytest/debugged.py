"""pytest's --pdb for cells: each test runs in its cell under pdb, on the user's terminal, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bkrules.build.session import NotBuilt
from bkrules.commands.debug import check_terminal, debug, is_debuggable
from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution.result import Result, failed
from bkrules.in_pytest.items import CellItem
from bkrules.in_pytest.reports import Reporter, failures_of
from bkrules.model.status import BAD, FailureClass, Status

if TYPE_CHECKING:
    from bkrules.in_pytest.matrices import Matrices


class Debugger:
    """Debugs cells, and reports each when it ends."""

    def __init__(self, config: pytest.Config, matrices: Matrices, reporter: Reporter) -> None:
        self._config, self._matrices, self._reporter = config, matrices, reporter

    def run(self, session: pytest.Session, items: Sequence[CellItem]) -> None:
        """Debug the tests of all cells, until the user quits. Raises BkError, also without a terminal."""
        with self._terminal():
            check_terminal()
        for item in items:
            hook = item.ihook
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            reports, has_quit = self._debug(item)
            for report in reports:
                hook.pytest_runtest_logreport(report=report)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            if has_quit:
                pytest.exit("Quitting debugger")
            if session.shouldfail or session.shouldstop:
                return

    def _debug(self, item: CellItem) -> tuple[list[pytest.TestReport], bool]:
        action, why = item.action, ""
        if not is_debuggable(action):
            reason = item.cell.skip or "it is a program, in which --pdb cannot stop"
            result = Result(action, Status.SKIPPED, reason=reason, failure=FailureClass.SKIP)
            return self._reporter.reports(item, result), False
        try:
            with self._terminal():
                done = debug(self._matrices.analysis, action, self._matrices.options)
        except NotBuilt as error:
            why = failures_of([one for one in error.result.results if one.status in BAD])
            result = Result(action, Status.NOT_RUN, reason=error.message, failure=FailureClass.BUILD)
            return self._reporter.reports(item, result, why), False
        except (ActionFailed, MachineLacks) as error:
            return self._reporter.reports(item, failed(action, error)), False
        own = self._reporter.made(item, done.reports)
        if own and any(report.failed for report in own) == (done.result.status in BAD):
            return own, done.has_quit
        said = done.result
        cached = done.is_cached
        result = Result(action, said.status, cached, reason="" if cached else said.reason, failure=said.failure)
        return self._reporter.reports(item, result), done.has_quit

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        """Let go of the terminal's streams, which pytest has taken to capture output."""
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=True)
        try:
            yield
        finally:
            if capture is not None:
                capture.resume_global_capture()

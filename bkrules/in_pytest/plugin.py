"""pytest's session with cells: one build of bk runs them all, and each is reported when it ends."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from bkrules.build.execute import execute
from bkrules.errors import BkError
from bkrules.execution.result import Result
from bkrules.in_pytest.debugged import Debugger
from bkrules.in_pytest.items import CellItem, CellModule
from bkrules.in_pytest.matrices import ALL, Matrices, read
from bkrules.in_pytest.reports import Reporter, failures_of
from bkrules.model.action import Action
from bkrules.model.status import BAD, FailureClass, Status
from bkrules.plugin.spec import hookimpl
from bkrules.report.build_result import BuildResult
from bkrules.report.progress import Progress

_TEST_CELL = "TestCell"


class _Stop(BaseException):
    """pytest wants no more results, so the build ends. It is not an Exception, so that nothing takes it for a failure."""


class _Progress(Progress):
    """The progress of a build as lines of pytest's output; pytest itself shows the cells."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = None
        if config.get_verbosity() >= 0:
            self._terminal = config.pluginmanager.get_plugin("terminalreporter")

    def start(self, action: Action, seconds: float | None = None, title: str = "") -> None:
        """Show that an action runs."""
        if action.mnemonic != _TEST_CELL:
            self.say(f"bk: {action.mnemonic} {title or action.title}")

    def end(self, result: Result) -> None:
        """Show nothing: a failure is part of the reports of the cells."""

    def close(self) -> None:
        """Show nothing."""

    def say(self, line: str, *, whole: bool = True) -> None:
        """Print a line."""
        if self._terminal is not None:
            self._terminal.ensure_newline()
            self._terminal.write_line(line)


class CellsPlugin:
    """Takes the tests of matrices from pytest, as items that bk runs on these workers."""

    def __init__(self, config: pytest.Config, workers: Sequence[str], *, is_asked: bool) -> None:
        self._config, self._workers, self._is_asked = config, workers, is_asked
        self._matrices: Matrices | None = None
        self._reporter: Reporter | None = None

    def pytest_report_header(self) -> str:
        """Name the workers."""
        return f"bk: cells on {', '.join(self._workers)}"

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """Find the matrices of the command line before pytest looks at any file. Raises UsageError."""
        here = self._config.invocation_params.dir
        paths = [str(here / word.partition("[")[0].partition("::")[0]) for word in self._config.args]
        try:
            self._matrices = read(
                [path for path in paths if os.path.exists(path)] or [str(here)], self._workers, is_asked=self._is_asked
            )
        except BkError as error:
            raise pytest.UsageError(str(error)) from error
        if self._matrices is not None:
            analysis = self._matrices.analysis
            self._reporter = Reporter(self._config, analysis.workspace.root, analysis.out)
        result = yield
        for fault in self._matrices.analysis.faults if self._matrices else ():
            where = fault.where.partition(":")[0] or "bk"
            self._config.hook.pytest_collectreport(report=pytest.CollectReport(where, "failed", str(fault), []))
        return result

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> CellModule | None:
        """Return the cells of a file; None for one in no matrix, which stays pytest's."""
        actions = self._matrices.cells.get(os.path.realpath(module_path)) if self._matrices else None
        if actions is None:
            return None
        assert self._matrices is not None
        module: CellModule = CellModule.from_parent(parent, path=module_path)
        module.actions, module.line_of = actions, self._matrices.line
        return module

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        """Collect also the files of tests that pytest takes for none: programs, build files, other names."""
        found = yield
        if any(isinstance(one, CellModule) for one in found):
            return found
        module = self.pytest_pycollect_makemodule(file_path, parent)
        return [*found, module] if module else found

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the cells on other workers."""
        if ALL in self._workers:
            return
        others = [item for item in items if isinstance(item, CellItem) and item.cell.worker not in self._workers]
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in set(others)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the items that are pytest's, then all cells, in one build. A process of xdist runs each cell by itself."""
        items = list(getattr(session, "items", ()))
        cells = [item for item in items if isinstance(item, CellItem)]
        may_run = not self._config.option.collectonly and not hasattr(self._config, "workerinput")
        may_run &= not session.testsfailed or self._config.option.continue_on_collection_errors
        if not cells or not may_run:
            return (yield)
        session.items[:] = [item for item in items if not isinstance(item, CellItem)]
        try:
            result = yield
        finally:
            session.items[:] = items
        self._run(session, cells)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Run one cell, for a plugin that runs items by itself."""
        if not isinstance(item, CellItem):
            return None
        self._run(item.session, [item])
        return True

    def _run(self, session: pytest.Session, items: Sequence[CellItem]) -> None:
        assert self._matrices is not None
        assert self._reporter is not None
        try:
            if self._config.option.usepdb:
                Debugger(self._config, self._matrices, self._reporter).run(session, items)
            else:
                _Build(session, items, self._matrices, self._reporter).run()
        except BkError as error:
            raise pytest.UsageError(str(error)) from error
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


class _Build:
    """One build of bk, and a listener of its results, which come in the main thread."""

    def __init__(
        self, session: pytest.Session, items: Sequence[CellItem], matrices: Matrices, reporter: Reporter
    ) -> None:
        self._session, self._matrices, self._reporter = session, matrices, reporter
        self._waiting = {item.action.id: item for item in items}
        self._late: list[tuple[CellItem, Result]] = []
        self._failed: list[Result] = []
        self._is_over = False

    def run(self) -> None:
        """Run the cells, and report each when it ends. Raises KeyboardInterrupt, and BkError."""
        analysis = self._matrices.only(list(self._waiting))
        hooks = analysis.plugins.hooks
        hooks.add(self)
        try:
            build = execute(analysis, self._matrices.options, _Progress(self._session.config))
        except _Stop:
            return
        finally:
            self._is_over = True
            hooks.remove(self)
        if build.interrupted:
            raise KeyboardInterrupt
        self._end(build)

    @hookimpl
    def bk_action_finished(self, result: Result) -> None:
        """Report a cell, unless it waits for the reason why it could not run."""
        if self._is_over:
            return
        if result.action.cell is None and result.status in BAD:
            self._failed.append(result)
        item = self._waiting.pop(result.action.id, None)
        if item is None:
            return
        if result.status == Status.NOT_RUN:
            self._late.append((item, result))
        else:
            self._report(item, result)

    def _end(self, build: BuildResult) -> None:
        """Report the cells that could not run, and what went wrong besides them."""
        self._is_over = False
        try:
            for item, result in self._late:
                if result.failure != FailureClass.INTERRUPTED:
                    self._report(item, result)
        except _Stop:
            return
        if build.leaks or build.fault:
            self._session.shouldfail = "; ".join(["bk: the build failed", *build.leaks, *filter(None, [build.fault])])

    def _report(self, item: CellItem, result: Result) -> None:
        why = failures_of(self._failed) if result.status == Status.NOT_RUN else ""
        report(item, self._reporter.reports(item, result, why))
        if self._session.shouldfail or self._session.shouldstop:
            self._is_over = True
            raise _Stop


def report(item: CellItem, reports: Sequence[pytest.TestReport]) -> None:
    """Tell pytest's reporters of an item."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for one in reports:
        hook.pytest_runtest_logreport(report=one)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

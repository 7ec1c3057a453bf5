"""pytest inside a cell: one test function, one outcome."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest._io.saferepr import saferepr
from _pytest.config import default_plugins

from bkrules.cell import pytest_start
from bkrules.cell.protocol import Outcome
from bkrules.cell.task import task_of
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.worker import Backend
from bkrules.testing import pytest_plugin
from bkrules.testing.collection import DECLARED, Faults, arguments, difference, name_of
from bkrules.testing.control import Control
from bkrules.testing.pytest_text import OWN_TEST, REPORTS, ROOT, last_line
from bkrules.testing.sandbox import Before, OutOfTime, Sandbox


class _Recorder(Faults):
    """Removes all tests but the cell's own from the collection of `module`, and keeps its outcome.

    `declared` are the declared names of all tests of the module.
    """

    def __init__(self, module: str, test: str, declared: Iterable[str]) -> None:
        super().__init__()
        self.module, self.test = module, test
        self.declared = sorted({*declared, *([test] if test else [])})
        self.items: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []
        self.documents: list[dict[str, Any]] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """Remember how this pytest writes a report as JSON."""
        self._write = config.hook.pytest_report_to_serializable
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Compare the collected tests with the declared ones. On a difference no test runs: a test may be missing somewhere."""
        names = [name_of(item, self.module) for item in session.items]
        collected = sorted(set(names))
        unlike = not self.reports and not (self.skipped and not names) and collected != self.declared
        own = [] if unlike else [item for item, name in zip(session.items, names, strict=True) if name == self.test]
        others = [item for item in session.items if item not in own]
        session.items[:] = own
        if others:
            session.config.hook.pytest_deselected(items=others)
        if unlike:
            print(f"\ncollected here: {collected}\ndeclared:       {self.declared}")
            what = difference(collected, self.declared)
            self.failures.append(f"pytest collects other tests of {self.module} in the cell than were declared: {what}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test that returns a value. pytest only warns of it, so it would pass, whatever it has compared."""
        values: list[object] = []
        if isinstance(item, pytest.Function) and not _is_async(item.obj):
            item.obj = _keeping(item.obj, values)
        passed = yield
        if values and values[0] is not None:
            value = saferepr(values[0], 60)
            pytest.fail(
                f"{item.name} returned {value}, which pytest ignores; use assert instead of return", pytrace=False
            )
        return passed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.documents.append(self._write(config=self._config, report=report))
        item = self.items.setdefault(report.nodeid, {"name": report.nodeid, "status": Status.NOT_RUN, "seconds": 0.0})
        item["seconds"] = round(item["seconds"] + report.duration, 3)
        expected = getattr(report, "wasxfail", None)
        if report.failed:
            item |= {"status": Status.FAILED, "reason": _last_line(report)}
            is_own = self.module == OWN_TEST
            self.failures.append(_bare(report) if is_own else f"{_place(report)}: {item['reason']}")
        elif item["status"] == Status.FAILED:
            return
        elif report.skipped and expected is None:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            item |= {"status": Status.SKIPPED, "reason": str(reason).removeprefix("Skipped: ")}
        elif report.skipped:
            item |= {"status": Status.PASSED, "reason": f"it failed, as expected: {expected}".removesuffix(": ")}
        elif report.when == "call":
            item["status"] = Status.PASSED

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        super().pytest_collectreport(report)
        if report.failed:
            self.failures.append(f"{report.nodeid}: {last_line(self.reports[-1])}")

    def outcome(self, exit_code: int) -> Outcome:
        """Return the cell's outcome. A test that did not run has not passed. `missing` are names that were not found meanwhile."""
        return replace(self._status(exit_code), missing=tuple(self.missing))

    def _status(self, exit_code: int) -> Outcome:
        by_status: dict[str, list[str]] = {}
        for item in self.items.values():
            by_status.setdefault(item["status"], []).append(item.get("reason", ""))
        if self.failures:
            more = len(by_status.get(Status.FAILED, ())) - 1
            also = f" (and {more} more of {len(self.items)})" if more > 0 else ""
            return _failed(self.failures[0] + also)
        if exit_code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            return _failed(f"pytest ended with exit status {exit_code}")
        if Status.PASSED in by_status:
            return Outcome(Status.PASSED, reason=next(filter(None, by_status[Status.PASSED]), ""))
        if Status.SKIPPED in by_status:
            return Outcome(Status.SKIPPED, FailureClass.SKIP, by_status[Status.SKIPPED][0])
        if self.skipped:
            return Outcome(Status.SKIPPED, FailureClass.SKIP, self.skipped)
        return _failed("the test was not collected, so nothing ran")


class _Holder:
    """Lets a user look at the cell of a failed test before its fixtures are torn down. `log` is the log of the test."""

    def __init__(self, control: Control, log: Path) -> None:
        self._control, self._log = control, log

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Write the report of the failure to the log, where pytest writes it at its end, and wait."""
        if isinstance(report, pytest.TestReport):
            with self._log.open("a") as log:
                log.write("\n".join(["", report.longreprtext, *(text for _, text in report.sections), ""]))
            self._control.hold(f"{report.nodeid}: {_last_line(report)}")


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _keeping(function: Callable[..., object], values: list[object]) -> Callable[..., None]:
    """Return a function that calls `function`, appends what it returns to `values`, and returns nothing."""

    @functools.wraps(function)
    def keeping(*positional: object, **named: object) -> None:
        __tracebackhide__ = True
        values.append(function(*positional, **named))

    return keeping


def _failed(reason: str) -> Outcome:
    return Outcome(Status.FAILED, FailureClass.TEST, reason)


def _bare(report: pytest.TestReport) -> str:
    """Return the first line of the message with which a test failed, and the number of the others."""
    crash = getattr(report.longrepr, "reprcrash", None)
    first, *others = str(crash.message if crash else report.longrepr).strip().splitlines()
    return first.removeprefix("Failed: ") + (f" (and {len(others)} more)" if others else "")


def _last_line(report: pytest.TestReport) -> str:
    """Return the first line of the message with which a test failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else getattr(report.longrepr, "errorstring", report.longrepr)
    return re.sub(r"^(AssertionError: (?=assert )|Failed: )", "", str(text).strip().splitlines()[0])


def _place(report: pytest.TestReport) -> str:
    """Return `file:line` of the innermost place in the workspace's files at which a test failed; without one, the test's own."""
    entries = getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", ())
    places = [place for entry in entries if (place := getattr(entry, "reprfileloc", None)) is not None]
    own = [place for place in places if not place.path.startswith(("/", "..", "<"))]
    if own:
        return f"{own[-1].path}:{own[-1].lineno}"
    path, line, _ = report.location
    return report.nodeid if line is None else f"{path}:{line + 1}"


def preload() -> None:
    """Import and make what pytest does later, so that forks of this process have it already."""
    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")
    pytest_start.prepare()


def _out_of_time(sandbox: Sandbox, _number: int, _frame: FrameType | None) -> None:
    __tracebackhide__ = True
    sandbox.done.set()
    raise OutOfTime("the cell's time is over")


def _keep(place: Path, reports: dict[str, object]) -> None:
    """Write pytest's reports to a file, or no file on a full disk: the outcome of the test does not depend on them."""
    try:
        place.write_text(json.dumps(reports, default=repr))
    except OSError:
        place.unlink(missing_ok=True)


def main(backend: Backend, cell: RunningCell, control: Control, outcome: str) -> int:
    """Run the cell's test and write its outcome to the file `outcome`. Return pytest's exit code."""
    task = task_of(cell)
    test, before = task.test, task.before or Before()
    assert test is not None, "nothing says which test it is"
    deadline = time.monotonic() + cell.timeout
    sandbox = Sandbox(test.name, test.worker, backend, test.axes, control, deadline, before=before)
    pytest_plugin.CURRENT[:] = [sandbox]
    signal.signal(signal.SIGALRM, functools.partial(_out_of_time, sandbox))
    sys.path.insert(0, ROOT)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    declared = json.loads(Path(ROOT, DECLARED).read_text())
    recorder = _Recorder(test.module, test.test, declared)
    debugger = ("--pdb", "-q", "--no-header", "--no-summary") if task.terminal is not None else ("-rA",)
    words = arguments(test.pytest, *debugger, "--basetemp=/tmp/pytest", test.module)
    holders = [_Holder(control, cell.daemons.logs / "test.log")] if task.is_kept else []
    code = pytest_start.run(words, [pytest_plugin, recorder, *holders])
    sandbox.done.set()
    _keep(cell.daemons.logs / REPORTS, {"exit_code": code, "reports": recorder.documents})
    result = recorder.outcome(code)
    Path(outcome).write_text(json.dumps(result.to()))
    return 0 if result.status in (Status.PASSED, Status.SKIPPED) else 1

"""The result of a cell as pytest's reports: those that pytest made in the cell, or, without them, new ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter

from bkrules.execution.layout import RESULT
from bkrules.execution.result import Result
from bkrules.in_pytest.items import CellItem
from bkrules.model.action import FileNode
from bkrules.model.status import BAD, GOOD, FailureClass, Status
from bkrules.report.failures import Failure, excerpt
from bkrules.report.output import LOG, folder_of
from bkrules.report.pytest_reports import PytestReports, read_reports
from bkrules.system.files import read_text
from bkrules.testing.pytest_text import ROOT

Phase = Literal["setup", "call", "teardown"]
_EXPECTED = "it failed, as expected"
_PLACE = re.compile(r"(?P<path>[^\s:]+\.py):(?P<line>\d+): (?P<message>.*)", re.S)
_OF_TEST = (FailureClass.NONE, FailureClass.TEST)


class CellRepr(TerminalRepr):
    """A failure of a cell as pytest prints it: a text, and the place for editors and for the summary."""

    def __init__(self, text: str, place: ReprFileLocation) -> None:
        self.text, self.reprcrash = text, place

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write the text, and the place last, as pytest does."""
        tw.line(self.text)
        tw.line("")
        self.reprcrash.toterminal(tw)


class Reporter:
    """Makes reports of cells in the workspace at `root`, whose logs are below `out`."""

    def __init__(self, config: pytest.Config, root: str, out: Path) -> None:
        self._config, self._root, self._out = config, root, out

    def reports(self, item: CellItem, result: Result, why: str = "") -> list[pytest.TestReport]:
        """Return the reports of a result, at least one for each phase that the test came to.

        `why` is more about a cell that could not run: the failures of what it needs.
        """
        logs = self._out / folder_of(item.cell)
        own = self.made(item, read_reports(logs) if result.has_run else None)
        outcomes = {report.outcome for report in own}
        if result.status in GOOD and own and "failed" not in outcomes:
            return own
        if result.status in BAD and own and "failed" in outcomes and result.failure in _OF_TEST:
            return self._with_log(own, logs)
        if result.status == Status.SKIPPED and "skipped" in outcomes and "failed" not in outcomes:
            return own
        return self._plain(item, result, why)

    def made(self, item: CellItem, found: PytestReports | None) -> list[pytest.TestReport]:
        """Return pytest's reports of the cell as those of the item; none when pytest cannot read them all.

        pytest's reporters take the teardown for the end of an item, so there is always one.
        """
        made = []
        try:
            for document in found.reports if found else ():
                own = {"nodeid": item.nodeid, "location": item.location, "keywords": dict.fromkeys(item.keywords, 1)}
                data = self._here(document) | own
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                if not isinstance(report, pytest.TestReport) or report.when not in ("setup", "call", "teardown"):
                    return []
                report.longreprtext  # noqa: B018 - it may be anything, and fails here rather than in pytest
                made.append(report)
        except Exception:  # whatever a cell has put into them: the plain reports take their place
            return []
        ended = not made or made[-1].when == "teardown"
        return made if ended else [*made, _report(item, "teardown")]  # the test was ended, or its debugger was quit

    def _here(self, value: Any) -> Any:
        """Return a document with the places in the cell's files as places in those of the workspace, as pytest shows them."""
        if isinstance(value, list):
            return [self._here(one) for one in value]
        if not isinstance(value, dict):
            return value
        made = {name: self._here(one) for name, one in value.items()}
        if {"path", "lineno", "message"} <= made.keys() and isinstance(made["path"], str):
            made["path"] = self._shown(made["path"])
        return made

    def _shown(self, path: str) -> str:
        inside = path.removeprefix(f"{ROOT}/")
        here = os.path.join(self._root, inside)
        if inside.startswith("/") or not os.path.isfile(here):
            return path
        return os.path.relpath(here, self._config.invocation_params.dir)

    def _with_log(self, reports: list[pytest.TestReport], logs: Path) -> list[pytest.TestReport]:
        """Add the place of the daemons' logs to the failures."""
        for report in reports:
            if report.failed:
                report.sections.append(("logs of the cell", f"{logs}\n"))
        return reports

    def _plain(self, item: CellItem, result: Result, why: str) -> list[pytest.TestReport]:
        """Return reports that follow from the result and the log of the cell alone."""
        if result.status in GOOD:
            return self._passed(item, result)
        if result.status == Status.SKIPPED:
            path, line, _ = item.location
            hint = f" ({result.hint.splitlines()[0]})" if result.hint else ""
            reason = (str(item.path) if path else "", (line or 0) + 1, f"Skipped: {result.reason}{hint}")
            return [_report(item, "setup", "skipped", reason), _report(item, "teardown")]
        if result.status == Status.NOT_RUN:
            text = "\n".join(filter(None, [f"the cell could not run: {result.reason}", why]))
            return [_report(item, "setup", "failed", self._repr(item, text)), _report(item, "teardown")]
        text = excerpt(Failure((result,)), self._out)
        text = "\n".join(filter(None, [text, f"{item.cell.name}: {result.reason}", result.hint]))
        longrepr = self._repr(item, text, result.reason)
        setup = _report(item, "setup")
        return [setup, _report(item, "call", "failed", longrepr, result.seconds), _report(item, "teardown")]

    def _passed(self, item: CellItem, result: Result) -> list[pytest.TestReport]:
        seconds = 0.0 if result.cached else result.seconds
        call, teardown = _report(item, "call", seconds=seconds), _report(item, "teardown")
        if result.cached:
            teardown.user_properties.append(("bk_cached", result.cache))  # where junitxml looks for them
        reason = _reason(result)
        if reason.startswith(_EXPECTED):
            call.outcome, call.wasxfail = "skipped", reason.removeprefix(_EXPECTED).removeprefix(": ")
        log = result.outputs.get(LOG)
        if isinstance(log, FileNode) and self._config.getoption("verbose") > 1:
            call.sections.append(("log of the cell", read_text(Path(log.path))))
        return [_report(item, "setup"), call, teardown]

    def _repr(self, item: CellItem, text: str, reason: str = "") -> CellRepr:
        match = _PLACE.match(reason)
        path, line, message = str(item.path), (item.location[1] or 0) + 1, text.splitlines()[0]
        if match:
            path, line, message = self._shown(match["path"]), int(match["line"]), match["message"]
        elif reason:
            message = reason
        return CellRepr(text, ReprFileLocation(os.path.relpath(path), line, message.splitlines()[0]))


def _report(
    item: CellItem,
    when: Phase,
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    longrepr: TerminalRepr | tuple[str, int, str] | None = None,
    seconds: float = 0.0,
) -> pytest.TestReport:
    keywords: Mapping[str, Any] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(
        item.nodeid, item.location, keywords, outcome, longrepr, when, duration=seconds, user_properties=[]
    )


def _reason(result: Result) -> str:
    """Return the reason of a passed cell, which a cached one has in a file."""
    node = result.outputs.get(RESULT)
    if result.reason or not isinstance(node, FileNode):
        return result.reason
    try:
        found = json.loads(read_text(Path(node.path)))["reason"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def failures_of(results: Sequence[Result]) -> str:
    """Return why actions that are no cells have failed, as a hint about the cells that need them."""
    lines = []
    for result in results:
        lines += [f"{result.action.title}: {result.reason}", *f"{result.hint}\n{result.log}".splitlines()]
    return "\n".join(filter(None, lines))

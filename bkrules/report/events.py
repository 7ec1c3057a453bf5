"""A build in Bazel's Build Event Protocol: JSON lines, written while the build runs, for tools that read Bazel's.

Field names and meaning: `build_event_stream.proto` of Bazel. A cell is a separate test target, with the label
`//pkg:matrix[CELL]`. Every event except the first is announced by an earlier one as its child. Every announced event
follows, if only as `aborted`; the last one is marked. `events.schema.json` describes each field.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bkrules import errors
from bkrules.errors import MachineLacks
from bkrules.execution.result import Attempt, Result
from bkrules.model.action import Action, Cell
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.model.status import GOOD, FailureClass, Status
from bkrules.plugin.spec import hookimpl
from bkrules.report.artifacts import JUNIT, REPORT

Event = dict[str, Any]
EXIT_CODES = {
    errors.SUCCESS: "SUCCESS",
    errors.BUILD_FAILED: "BUILD_FAILURE",
    errors.USAGE: "COMMAND_LINE_ERROR",
    errors.TESTS_FAILED: "TESTS_FAILED",
    errors.NOTHING_RAN: "NO_TESTS_FOUND",
    errors.INTERRUPTED: "INTERRUPTED",
    errors.REMOTE_FAILED: "REMOTE_ERROR",
    errors.MACHINE_LACKS: "LOCAL_ENVIRONMENTAL_ERROR",
    errors.BUG: "BLAZE_INTERNAL_ERROR",
}
"""Bazel's names of its exit codes."""
STATUSES = {
    Status.PASSED: "PASSED",
    Status.FLAKY: "FLAKY",
    Status.FAILED: "FAILED",
    Status.TIMED_OUT: "TIMEOUT",
    Status.SKIPPED: "NO_STATUS",
}
SCHEMA = "1"
"""The version of the stream, which `events.schema.json` describes."""
_FINISHED: Event = {"buildFinished": {}}
_METADATA: Event = {"buildMetadata": {}}


class Events:
    """Writes the events of one build to the file at `path`, or to nothing for an empty path. Raises MachineLacks on an error."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "w", encoding="utf-8") if path else None  # noqa: SIM115 - closed with the last event
        except OSError as error:
            message = f"--build_event_json_file: cannot write {path}: {error.strerror}"
            raise MachineLacks("events", message, hint="name a file in an existing folder") from error
        self._announced: dict[str, Event] = {}
        self._progress = 1
        self._sets = 0
        self._out = Path()
        self._expanded = False
        self._waiting: dict[Label, set[str]] = {}
        self._broken: set[Label] = set()
        self._cells: dict[str, list[str]] = {}
        self._results: dict[str, Result] = {}

    def started(self, command: str, patterns: Sequence[str], workspace: str, version: str) -> None:
        """Write that the build has begun."""
        if self._file is None:
            return
        import uuid

        self._post(
            {"started": {}},
            [_METADATA, self._progress_id(), {"pattern": {"pattern": list(patterns)}}, _FINISHED],
            started={
                "uuid": str(uuid.uuid4()),
                "startTimeMillis": str(time.time_ns() // 1_000_000),
                "startTime": _now(),
                "buildToolVersion": version,
                "command": command,
                "workingDirectory": os.getcwd(),
                "workspaceDirectory": workspace,
                "serverPid": str(os.getpid()),
            },
        )
        self._post(_METADATA, buildMetadata={"metadata": {"BK_EVENTS_SCHEMA": SCHEMA}})

    def configured(
        self, patterns: Sequence[str], targets: Sequence[Target], actions: Mapping[str, Action], out: Path
    ) -> None:
        """Write the targets of the patterns, and their actions, a cell for each run; `out` is `bk-out`."""
        self._out, self._expanded = out, True
        self._waiting = {target.label: set() for target in targets}
        for name, action in actions.items():
            if action.label in self._waiting:
                self._waiting[action.label].add(name)
            if action.cell is not None:
                self._cells.setdefault(_label(action.cell), []).append(name)
        children = [_target(str(target.label)) for target in targets] + [_target(label) for label in self._cells]
        self._post({"pattern": {"pattern": list(patterns)}}, children, expanded={})
        for target in targets:
            tags = list(target.attributes.get("tags") or ())
            kind = {"targetKind": f"{target.rule.name} rule", **({"tag": tags} if tags else {})}
            self._post(_target(str(target.label)), [_completed(str(target.label))], configured=kind)
        for label in self._cells:
            self._post(_target(label), [_completed(label)], configured={"targetKind": "test_cell rule"})

    @hookimpl
    def bk_action_finished(self, result: Result) -> None:
        """Write the event of an action's result."""
        if self._file is None:
            return
        action = result.action
        self._results[action.id] = result
        if action.cell is not None:
            self._cell(action.cell, result)
        elif result.status != Status.PASSED:
            self._failed(result)
        waiting = self._waiting.get(action.label)
        if waiting is not None:
            if result.status not in GOOD:
                self._broken.add(action.label)
            waiting.discard(action.id)
            if not waiting:
                self._complete(action.label)

    def finished(self, code: int, why: str = "") -> None:
        """Write that the build is over. Announced events that did not follow are aborted; `why` is the reason."""
        if self._file is None:
            return
        if code == errors.SUCCESS:
            for label, waiting in self._waiting.items():
                if not waiting and _key(_completed(str(label))) in self._announced:
                    self._complete(label)  # a worker or a mirror is complete when the build is
        reason = "INCOMPLETE" if self._expanded else "LOADING_FAILURE"
        reason = {errors.INTERRUPTED: "USER_INTERRUPTED", errors.BUG: "INTERNAL"}.get(code, reason)
        last = {_key(_FINISHED), _key(self._progress_id())}
        for name, event in list(self._announced.items()):
            if name not in last:
                self._post(event, aborted={"reason": reason, "description": why})
        if _key(self._progress_id()) in self._announced:
            self._post(self._progress_id(), progress={})
        finished = {
            "overallSuccess": code == errors.SUCCESS,
            "exitCode": {"name": EXIT_CODES[code], "code": code},
            "finishTimeMillis": str(time.time_ns() // 1_000_000),
            "finishTime": _now(),
        }
        self._post(_FINISHED, finished=finished, lastMessage=True)
        self._file.close()
        self._file = None

    def _cell(self, cell: Cell, result: Result) -> None:
        label = _label(cell)
        names = self._cells[label]
        if _key(_completed(label)) in self._announced:
            runs = [_attempt(label, number, 1) for number in range(1, len(names) + 1)]
            # A cell whose inputs could not be built has no test to run.
            self._post(
                _completed(label), [*runs, _summary(label)], completed={"success": result.status != Status.NOT_RUN}
            )
        has_answer = result.ran is not None or result.cached
        if result.status == Status.NOT_RUN or (result.status == Status.SKIPPED and not has_answer):
            self._post(_attempt(label, cell.run or 1, 1), aborted=_absent(result))
        else:
            self._attempts(label, cell, result)
        if all(name in self._results for name in names):
            self._summarize(label, [self._results[name] for name in names])

    def _attempts(self, label: str, cell: Cell, result: Result) -> None:
        folder = self._out / cell.matrix.package / cell.matrix.name / cell.name
        ran = result.ran.attempts if result.ran else ()
        for number, attempt in enumerate(ran or (Attempt(result.status, result.seconds, "test.log"),), 1):
            last = number >= len(ran)
            logs = sorted(path.name for path in folder.glob("*.log")) if last and ran else []
            names = dict.fromkeys([attempt.log, *(logs if last else ()), *(result.outputs if last else ())])
            names = names if result.is_here else {}
            self._post(
                _attempt(label, cell.run or 1, number),
                [] if last else [_attempt(label, cell.run or 1, number + 1)],
                testResult={
                    "status": STATUSES[attempt.status],
                    "statusDetails": attempt.reason or (result.reason if last else ""),
                    "cachedLocally": result.cache == "disk",
                    "testAttemptDurationMillis": str(round(attempt.seconds * 1000)),
                    "testAttemptDuration": _duration(attempt.seconds),
                    "testActionOutput": [_file(folder / name, os.path.basename(name)) for name in names],
                    "executionInfo": {"strategy": "bk", "cachedRemotely": result.cache == "remote"},
                },
            )

    def _summarize(self, label: str, runs: Sequence[Result]) -> None:
        logs: dict[bool, list[Event]] = {True: [], False: []}
        for result in runs:
            cell = result.action.cell
            assert cell is not None
            if (result.ran or result.cached) and result.is_here:
                log = self._out / cell.matrix.package / cell.matrix.name / cell.name / "test.log"
                logs[result.status in GOOD].append(_file(log, "test.log"))
        attempts = [len(result.ran.attempts) if result.ran else 1 for result in runs]
        seconds = sum(result.seconds for result in runs)
        self._post(
            _summary(label),
            testSummary={
                "overallStatus": _overall(runs),
                "totalRunCount": sum(attempts),
                "runCount": len(runs),
                "attemptCount": max(attempts),
                "shardCount": 1,
                "passed": logs[True],
                "failed": logs[False],
                "totalNumCached": sum(result.cached for result in runs),
                "totalRunDurationMillis": str(round(seconds * 1000)),
                "totalRunDuration": _duration(seconds),
            },
        )

    def _failed(self, result: Result) -> None:
        """Write that an action other than a cell has failed, or did not run because of a failure. A progress event announces it."""
        action = result.action
        if result.status == Status.NOT_RUN:
            return
        event = {"actionCompleted": {"primaryOutput": action.outputs[0], "label": str(action.label)}}
        before = self._progress_id()
        self._progress += 1
        self._post(before, [self._progress_id(), event], progress={"stderr": f"{result.reason}\n{result.log}"})
        self._post(event, action={"success": False, "type": action.mnemonic, "commandLine": list(action.arguments)})

    def _complete(self, label: Label) -> None:
        """Write that a requested target is complete; a named set has its files."""
        event = _completed(str(label))
        folder = self._out / label.package / label.name
        made = [
            result for result in self._results.values() if result.action.label == label and result.action.cell is None
        ]
        names = [name for result in made if result.is_here for name in result.outputs]
        if any(result.action.label == label and result.action.cell for result in self._results.values()):
            names = [REPORT, JUNIT]
        success = label not in self._broken
        if not names or not (success or REPORT in names):
            self._post(event, completed={"success": success})
            return
        self._sets += 1
        files = {"namedSet": {"id": str(self._sets)}}
        groups = [{"name": "default", "fileSets": [files["namedSet"]]}]
        self._post(event, [files], completed={"success": success, "outputGroup": groups})
        self._post(files, namedSetOfFiles={"files": [_file(folder / name, name) for name in names]})

    def _progress_id(self) -> Event:
        return {"progress": {"opaqueCount": self._progress}}

    def _post(self, event: Event, children: Iterable[Event] = (), **payload: Any) -> None:
        if self._file is None:
            return
        listed = list(children)
        self._announced.pop(_key(event), None)
        self._announced |= {_key(child): child for child in listed}
        document = {"id": event, **({"children": listed} if listed else {}), **payload}
        self._file.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._file.flush()


def _label(cell: Cell) -> str:
    return f"{cell.matrix}[{cell.point}]"


def _key(event: Event) -> str:
    return json.dumps(event, sort_keys=True)


def _target(label: str) -> Event:
    return {"targetConfigured": {"label": label}}


def _completed(label: str) -> Event:
    return {"targetCompleted": {"label": label}}


def _attempt(label: str, run: int, attempt: int) -> Event:
    return {"testResult": {"label": label, "run": run, "shard": 1, "attempt": attempt}}


def _summary(label: str) -> Event:
    return {"testSummary": {"label": label}}


def _absent(result: Result) -> Event:
    reason = "SKIPPED" if result.status == Status.SKIPPED else "INCOMPLETE"
    return {
        "reason": "USER_INTERRUPTED" if result.failure == FailureClass.INTERRUPTED else reason,
        "description": result.reason,
    }


def _overall(runs: Sequence[Result]) -> str:
    """Return the status of a cell from those of its runs: the worst one."""
    if any(result.failure == FailureClass.INTERRUPTED for result in runs):
        return "INCOMPLETE"
    statuses = {result.status for result in runs}
    for status, word in ((Status.FAILED, "FAILED"), (Status.TIMED_OUT, "TIMEOUT"), (Status.NOT_RUN, "FAILED_TO_BUILD")):
        if status in statuses:
            return word
    return STATUSES[
        Status.FLAKY if Status.FLAKY in statuses else Status.PASSED if Status.PASSED in statuses else Status.SKIPPED
    ]


def _file(path: Path, name: str) -> Event:
    return {"name": name, "uri": path.absolute().as_uri()}


def _duration(seconds: float) -> str:
    return f"{seconds:.6f}s"


def _now() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now // 10**6 % 1000:03}Z"

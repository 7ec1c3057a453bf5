"""What a stream of Bazel's Build Event Protocol must be: its invariants, and the fields of build_event_stream.proto.

The table has the messages that bk writes, with all their fields that are not deprecated and those deprecated ones that tools
still read, by the names of JSON's mapping of protocol buffers. A field is a message of the table, or `str`, `int` (a number),
`long` (64 bits: a string of digits), `bool`, `duration`, `timestamp`, `Map` (of texts) or an enumeration; `*` repeats.
"""

from __future__ import annotations

import json
import re
from typing import Any

from schemas import EVENTS, validate

STATUS = "|NO_STATUS|PASSED|FLAKY|TIMEOUT|FAILED|INCOMPLETE|REMOTE_FAILURE|FAILED_TO_BUILD|TOOL_HALTED_BEFORE_TESTING"
REASON = (
    "|UNKNOWN|USER_INTERRUPTED|NO_ANALYZE|NO_BUILD|TIME_OUT|REMOTE_ENVIRONMENT_FAILURE|INTERNAL|LOADING_FAILURE"
    "|ANALYSIS_FAILURE|SKIPPED|INCOMPLETE|OUT_OF_MEMORY"
)
MESSAGES: dict[str, dict[str, str]] = {
    "BuildEvent": {
        "id": "BuildEventId",
        "children": "*BuildEventId",
        "lastMessage": "bool",
        "progress": "Progress",
        "aborted": "Aborted",
        "started": "BuildStarted",
        "buildMetadata": "BuildMetadata",
        "expanded": "PatternExpanded",
        "configured": "TargetConfigured",
        "action": "ActionExecuted",
        "namedSetOfFiles": "NamedSetOfFiles",
        "completed": "TargetComplete",
        "testResult": "TestResult",
        "testSummary": "TestSummary",
        "finished": "BuildFinished",
    },
    "BuildEventId": {
        "progress": "ProgressId",
        "started": "Empty",
        "buildMetadata": "Empty",
        "pattern": "PatternId",
        "targetConfigured": "LabelId",
        "targetCompleted": "LabelId",
        "namedSet": "NamedSetId",
        "actionCompleted": "ActionCompletedId",
        "testResult": "TestResultId",
        "testSummary": "LabelId",
        "buildFinished": "Empty",
    },
    "Empty": {},
    "ProgressId": {"opaqueCount": "int"},
    "PatternId": {"pattern": "*str"},
    "LabelId": {"label": "str", "configuration": "ConfigurationId"},
    "NamedSetId": {"id": "str"},
    "ConfigurationId": {"id": "str"},
    "ActionCompletedId": {"primaryOutput": "str", "label": "str", "configuration": "ConfigurationId"},
    "TestResultId": {
        "label": "str",
        "configuration": "ConfigurationId",
        "run": "int",
        "shard": "int",
        "attempt": "int",
    },
    "Progress": {"stdout": "str", "stderr": "str"},
    "Aborted": {"reason": REASON, "description": "str"},
    "BuildStarted": {
        "uuid": "str",
        "startTimeMillis": "long",
        "startTime": "timestamp",
        "buildToolVersion": "str",
        "optionsDescription": "str",
        "command": "str",
        "workingDirectory": "str",
        "workspaceDirectory": "str",
        "serverPid": "long",
    },
    "BuildMetadata": {"metadata": "Map"},
    "PatternExpanded": {},
    "TargetConfigured": {"targetKind": "str", "testSize": "str", "tag": "*str"},
    "ActionExecuted": {
        "success": "bool",
        "type": "str",
        "exitCode": "int",
        "stdout": "File",
        "stderr": "File",
        "primaryOutput": "File",
        "commandLine": "*str",
    },
    "File": {"name": "str", "uri": "str", "pathPrefix": "*str", "digest": "str", "length": "long"},
    "NamedSetOfFiles": {"files": "*File", "fileSets": "*NamedSetId"},
    "OutputGroup": {"name": "str", "fileSets": "*NamedSetId", "incomplete": "bool"},
    "TargetComplete": {"success": "bool", "outputGroup": "*OutputGroup", "tag": "*str", "testTimeout": "duration"},
    "TestResult": {
        "status": STATUS,
        "statusDetails": "str",
        "cachedLocally": "bool",
        "testAttemptStart": "timestamp",
        "testAttemptDuration": "duration",
        "testAttemptDurationMillis": "long",
        "testActionOutput": "*File",
        "warning": "*str",
        "executionInfo": "ExecutionInfo",
    },
    "ExecutionInfo": {"strategy": "str", "cachedRemotely": "bool", "exitCode": "int", "hostname": "str"},
    "TestSummary": {
        "overallStatus": STATUS,
        "totalRunCount": "int",
        "runCount": "int",
        "attemptCount": "int",
        "shardCount": "int",
        "passed": "*File",
        "failed": "*File",
        "totalNumCached": "int",
        "firstStartTime": "timestamp",
        "lastStopTime": "timestamp",
        "totalRunDuration": "duration",
        "totalRunDurationMillis": "long",
    },
    "BuildFinished": {
        "overallSuccess": "bool",
        "exitCode": "ExitCode",
        "finishTimeMillis": "long",
        "finishTime": "timestamp",
    },
    "ExitCode": {"name": "str", "code": "int"},
}
_TEXTS = {
    "long": r"-?\d+",
    "duration": r"-?\d+(\.\d{1,9})?s",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z",
    "str": r"(?s).*",
}
# The payload of each kind of event; each of them may be `aborted` instead.
_PAYLOADS = {
    "progress": "progress",
    "started": "started",
    "buildMetadata": "buildMetadata",
    "pattern": "expanded",
    "targetConfigured": "configured",
    "targetCompleted": "completed",
    "namedSet": "namedSetOfFiles",
    "actionCompleted": "action",
    "testResult": "testResult",
    "testSummary": "testSummary",
    "buildFinished": "finished",
}


def check(text: str) -> list[dict[str, Any]]:
    """The events of a complete stream. Fails where it is none."""
    events = [json.loads(line) for line in text.splitlines()]
    announced = {json.dumps(events[0]["id"])}
    posted: set[str] = set()
    for event in events:
        _check("BuildEvent", event)
        validate(EVENTS, event)
        name = json.dumps(event["id"])
        assert name in announced, f"nobody announced {name}"
        assert name not in posted, f"{name} came twice"
        posted.add(name)
        announced |= {json.dumps(child) for child in event.get("children", ())}
        (kind,) = event["id"]
        (payload,) = event.keys() - {"id", "children", "lastMessage"}
        assert payload in (_PAYLOADS[kind], "aborted")
    assert announced == posted, f"never came: {announced - posted}"
    assert [event.get("lastMessage", False) for event in events] == [False] * (len(events) - 1) + [True]
    assert text.endswith("\n")
    return events


def _check(kind: str, value: Any) -> None:
    if kind.startswith("*"):
        for one in value:
            _check(kind[1:], one)
    elif kind.startswith("|"):
        assert value in kind.split("|")
    elif kind in MESSAGES:
        assert value.keys() <= MESSAGES[kind].keys(), f"{kind} has no {value.keys() - MESSAGES[kind].keys()}"
        for name, one in value.items():
            _check(MESSAGES[kind][name], one)
    elif kind == "Map":
        assert all(isinstance(text, str) for text in value.values())
    elif kind in _TEXTS:
        assert isinstance(value, str)
        assert re.fullmatch(_TEXTS[kind], value), f"{value!r} is no {kind}"
    else:
        assert type(value) is {"int": int, "bool": bool}[kind]


def payloads(events: list[dict[str, Any]], name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Ids, without their kind, and payloads of the events that have such a payload."""
    return [(next(iter(event["id"].values())), event[name]) for event in events if name in event]

"""The Build Event Protocol: one complete stream for every end of a build."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.bep import check, payloads
from spaces import Space

from bkrules.errors import MachineLacks
from bkrules.execution.result import Attempt, CellReport, Result
from bkrules.model.label import Label
from bkrules.model.rule import Location, Target
from bkrules.model.status import FailureClass, Status
from bkrules.report.events import EXIT_CODES, Events
from bkrules.rules import RULES

CELL = "//t:m[test_it/worker=oci/compression=gzip]"
FLAKY = (
    Attempt(Status.FAILED, 1.0, "attempt_1/test.log", FailureClass.TEST, "assert 0"),
    Attempt(Status.PASSED, 2.0, "test.log"),
)
MakeCell = Callable[..., Result]
Stream = Callable[..., list[dict[str, Any]]]


def target(name: str, rule: str = "test_matrix") -> Target:
    return Target(Label("t", name), RULES[rule], {"tags": ("slow",)}, {}, Location("t/BUILD.py", 1, {}))


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """The events of a build of //t:m, and of the targets given, with these results."""

    def write(*results: Result, code: int = 0, more: tuple[Target, ...] = ()) -> list[dict[str, Any]]:
        events = Events(str(tmp_path / "events"))
        events.started("test", ["//t:m"], "/root", "1")
        actions = {str(number): replace(one.action, id=str(number)) for number, one in enumerate(results)}
        events.configured(["//t:m"], [target("m"), *more], actions, tmp_path / "bk-out")
        for number, result in enumerate(results):
            events.bk_action_finished(replace(result, action=actions[str(number)]))
        events.finished(code)
        return check((tmp_path / "events").read_text())

    return write


def test_what_there_is_of_a_cell(stream: Stream, cell: MakeCell, tmp_path: Path) -> None:
    events = stream(cell("passed", ran=CellReport((Attempt(Status.PASSED, 1.5, "test.log"),))))

    ((own, result),) = payloads(events, "testResult")
    assert own == {"label": CELL, "run": 1, "shard": 1, "attempt": 1}
    assert (result["status"], result["cachedLocally"], result["testAttemptDuration"]) == ("PASSED", False, "1.500000s")
    place = (tmp_path / "bk-out/t/m/test_it/worker=oci").as_uri().replace("=", "%3D") + "/compression%3Dgzip/test.log"
    assert result["testActionOutput"] == [{"name": "test.log", "uri": place}]
    ((own, summary),) = payloads(events, "testSummary")
    assert own == {"label": CELL}
    assert (summary["overallStatus"], summary["runCount"], summary["totalNumCached"]) == ("PASSED", 1, 0)
    assert {own["label"]: one["targetKind"] for own, one in payloads(events, "configured")} == {
        "//t:m": "test_matrix rule",
        CELL: "test_cell rule",
    }
    assert [own["label"] for own, _ in payloads(events, "completed")] == [CELL, "//t:m"]
    assert payloads(events, "finished")[0][1]["exitCode"] == {"name": "SUCCESS", "code": 0}


@pytest.mark.parametrize(
    ("remote", "expected"), [(False, (True, False)), (True, (False, True))], ids=["disk", "remote"]
)
def test_which_cache_a_result_is_from(
    stream: Stream, cell: MakeCell, remote: bool, expected: tuple[bool, bool]
) -> None:
    events = stream(replace(cell("passed", cached=True), remote=remote))
    ((_, result),) = payloads(events, "testResult")
    assert (result["cachedLocally"], result["executionInfo"]["cachedRemotely"]) == expected
    assert payloads(events, "testSummary")[0][1]["totalNumCached"] == 1


def test_each_attempt_has_its_event(stream: Stream, cell: MakeCell) -> None:
    events = stream(cell("flaky", failure="test", ran=CellReport(FLAKY)))

    found = [(own["attempt"], one["status"], one["statusDetails"]) for own, one in payloads(events, "testResult")]
    assert found == [(1, "FAILED", "assert 0"), (2, "PASSED", "")]
    ((_, summary),) = payloads(events, "testSummary")
    assert (summary["overallStatus"], summary["attemptCount"], summary["totalRunCount"]) == ("FLAKY", 2, 2)


def test_runs_are_results_of_one_test(stream: Stream, cell: MakeCell) -> None:
    once = CellReport((Attempt(Status.PASSED, 1.0, "test.log"),))
    runs = [cell("passed", run=number, runs=3, ran=once) for number in (1, 2)]
    failed = cell(
        "failed",
        failure="test",
        run=3,
        runs=3,
        ran=CellReport((Attempt(Status.FAILED, 1.0, "test.log", FailureClass.TEST),)),
    )

    events = stream(*runs, failed, code=3)

    assert [own["run"] for own, _ in payloads(events, "testResult")] == [1, 2, 3]
    ((_, summary),) = payloads(events, "testSummary")
    assert (summary["overallStatus"], summary["runCount"]) == ("FAILED", 3)
    assert (len(summary["passed"]), len(summary["failed"])) == (2, 1)
    assert {own["label"]: one["success"] for own, one in payloads(events, "completed")}["//t:m"] is False


@pytest.mark.parametrize(
    ("status", "failure", "reason", "overall"),
    [
        ("skipped", "machine", "SKIPPED", "NO_STATUS"),
        ("not run", "build", "INCOMPLETE", "FAILED_TO_BUILD"),
        ("not run", "interrupted", "USER_INTERRUPTED", "INCOMPLETE"),
    ],
)
def test_a_cell_that_did_not_run_is_aborted(
    stream: Stream, cell: MakeCell, status: str, failure: str, reason: str, overall: str
) -> None:
    events = stream(cell(status, failure=failure, reason="why"), code=36)

    assert [one for _, one in payloads(events, "aborted")] == [{"reason": reason, "description": "why"}]
    assert payloads(events, "testSummary")[0][1]["overallStatus"] == overall


def test_a_cached_skip_is_a_result_with_its_reason(stream: Stream, cell: MakeCell) -> None:
    events = stream(cell("skipped", cached=True, failure="skip", reason="no wings"))

    assert list(payloads(events, "aborted")) == []
    ((_, result),) = payloads(events, "testResult")
    assert (result["status"], result["statusDetails"], result["cachedLocally"]) == ("NO_STATUS", "no wings", True)
    ((_, summary),) = payloads(events, "testSummary")
    assert (summary["overallStatus"], summary["totalNumCached"]) == ("NO_STATUS", 1)


def test_a_failed_action_is_the_cause(stream: Stream, step: Callable[..., Result], cell: MakeCell) -> None:
    broken = step("failed", "build")
    broken = replace(broken, reason="the compiler said no", action=replace(broken.action, outputs=("tool",)))

    events = stream(broken, cell("not run", failure="build"), code=1, more=(target("tool", "go_binary"),))

    ((own, action),) = payloads(events, "action")
    assert own == {"primaryOutput": "tool", "label": "//t:tool"}
    assert (action["success"], action["type"]) == (False, "GoBuild")
    assert any("the compiler said no" in one.get("stderr", "") for _, one in payloads(events, "progress"))
    success = {own["label"]: one["success"] for own, one in payloads(events, "completed")}
    assert success == {"//t:tool": False, CELL: False, "//t:m": False}


@pytest.mark.parametrize("code", sorted(EXIT_CODES))
def test_a_build_that_ends_early_is_complete_all_the_same(tmp_path: Path, code: int) -> None:
    events = Events(str(tmp_path / "events"))
    events.started("build", ["//..."], "/root", "1")
    events.finished(code, "p/BUILD.py:1: no")
    events.finished(code)  # once is enough

    found = check((tmp_path / "events").read_text())

    ((own, aborted),) = payloads(found, "aborted")
    assert own == {"pattern": ["//..."]}
    assert aborted["description"] == "p/BUILD.py:1: no"
    assert payloads(found, "finished")[0][1]["exitCode"] == {"name": EXIT_CODES[code], "code": code}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="cannot write"):
        Events(str(tmp_path / "none/events"))


IMAGES = "from bkrules import image\nimage(name = 'a')\nimage(name = 'b', files = {'x': 'x.txt'})\n"


def test_a_build_that_succeeds(space: Space) -> None:
    space.write("p/BUILD.py", IMAGES)
    space.write("p/x.txt", "x")

    for _ in range(2):  # the second time nothing runs, and the stream is written all the same
        (space.root / "events").unlink(missing_ok=True)
        done = space.bk("build", "//p:all", "--build_event_json_file=events")
        assert done.returncode == 0, done.stderr
        events = check((space.root / "events").read_text())
        assert {own["label"]: one["success"] for own, one in payloads(events, "completed")} == {
            "//p:a": True,
            "//p:b": True,
        }
        files = [file["uri"] for _, one in payloads(events, "namedSetOfFiles") for file in one["files"]]
        assert sorted(files) == [(space.root / f"bk-out/p/{name}/layout").as_uri() for name in "ab"]


def test_a_build_file_that_is_wrong(space: Space) -> None:
    space.write("p/BUILD.py", "nonsense()")
    done = space.bk("build", "//...", "--build_event_json_file=events")
    events = check((space.root / "events").read_text())
    assert done.returncode == payloads(events, "finished")[0][1]["exitCode"]["code"] == 1
    assert payloads(events, "aborted")[0][1]["reason"] == "LOADING_FAILURE"


def test_a_build_that_is_interrupted(space: Space) -> None:
    rules = (
        "from bkrules import genrule, host_binary, workspace\nworkspace(name = 'test')\nhost_binary(name = 'sleep')\n"
    )
    cmd = "genrule(name = 'long', outs = ['x'], tools = [':sleep'], cmd = ['$(location :sleep)', '60'])\n"
    space.write("WORKSPACE.py", rules + cmd)
    command = space.command("build", "//:long", "--build_event_json_file=events")
    with subprocess.Popen(command, cwd=space.root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "Genrule //:long" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)  # at once, when the build is just about to wait
        process.communicate(timeout=30)

    events = check((space.root / "events").read_text())
    assert process.returncode == payloads(events, "finished")[0][1]["exitCode"]["code"] == 8

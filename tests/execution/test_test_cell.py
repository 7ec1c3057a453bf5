"""How often a cell runs: decided by the class of what failed, without a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bkrules.action import Action, Cell
from bkrules.execution import test_cell
from bkrules.execution.result import Attempt, Outcome
from bkrules.execution.runner import Workshop
from bkrules.label import Label

TEST: dict[str, Any] = {"status": "failed", "class": "test", "reason": "assert 1 == 2"}
INFRASTRUCTURE: dict[str, Any] = {"status": "failed", "class": "infrastructure", "reason": "buildkitd ended"}
TIMEOUT: dict[str, Any] = {"status": "timed out", "class": "timeout", "reason": "it took more than 1 s"}
STUCK: dict[str, Any] = {"status": "timed out", "class": "infrastructure", "reason": "the cell did not end in time"}
LEAK: dict[str, Any] = {"status": "failed", "class": "leak", "reason": "it left a mount"}
PASSED: dict[str, Any] = {"status": "passed"}
Play = Callable[..., Outcome]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Play:
    """Runs a cell whose attempts end like these, one after the other. More of them than that is an error."""

    def run(*ends: Mapping[str, Any], flaky: bool = False, attempts: int | None = None) -> Outcome:
        label = Label("p", "m")
        cell = Cell(label, "test_x", "oci", (), flaky=flaky)
        action = Action("id", label, "TestCell", ('{"isolation":"cell"}',), (), ("test.log",), cell=cell)
        waiting = iter(ends)

        def one(*arguments: object, **_names: object) -> dict[str, Any]:
            end = next(waiting)
            Path(str(arguments[3]), "test.log").write_text(end.get("reason", "all is well"))
            return {"unlimited": (), **end}

        monkeypatch.setattr(test_cell, "check_machine", lambda *_: None)
        monkeypatch.setattr(test_cell, "run_in_cell", one)
        workshop = SimpleNamespace(test_attempts=attempts, cell_folder=lambda _: tmp_path / "cell")
        outcome = test_cell.run_test_cell(action, {}, cast(Workshop, workshop))
        assert next(waiting, None) is None
        return outcome

    return run


def statuses(outcome: Outcome) -> list[str]:
    assert outcome.ran is not None
    return [attempt.status for attempt in outcome.ran.attempts]


@pytest.mark.parametrize("end", [TEST, TIMEOUT, LEAK, STUCK], ids=["test", "timeout", "leak", "stuck"])
def test_by_default_what_failed_stays_failed(play: Play, end: dict[str, Any]) -> None:
    outcome = play(end)
    assert (outcome.status, outcome.failure, statuses(outcome)) == (end["status"], end["class"], [end["status"]])


@pytest.mark.parametrize("end", [TIMEOUT, LEAK, STUCK], ids=["timeout", "leak", "stuck"])
def test_attempts_are_for_failed_tests_alone(play: Play, end: dict[str, Any]) -> None:
    outcome = play(end, flaky=True, attempts=10)
    assert statuses(outcome) == [end["status"]]


def test_a_failed_infrastructure_gets_one_more_sandbox(play: Play) -> None:
    assert statuses(play(INFRASTRUCTURE, INFRASTRUCTURE)) == ["failed", "failed"]
    again = play(INFRASTRUCTURE, PASSED)
    assert (again.status, again.failure, statuses(again)) == ("flaky", "infrastructure", ["failed", "passed"])


def test_a_matrix_that_says_it_is_flaky_has_three_attempts(play: Play) -> None:
    lost = play(TEST, TEST, TEST, flaky=True)
    assert (lost.status, lost.failure, len(statuses(lost))) == ("failed", "test", 3)
    won = play(TEST, TEST, PASSED, flaky=True)
    assert (won.status, won.failure) == ("flaky", "test")
    assert won.reason == "passed at attempt 3, after: assert 1 == 2"


def test_the_command_line_says_how_many_attempts_there_are(play: Play) -> None:
    assert len(statuses(play(TEST, TEST, attempts=2))) == 2
    assert len(statuses(play(TEST, flaky=True, attempts=1))) == 1


def test_each_class_of_failure_counts_for_itself(play: Play) -> None:
    outcome = play(INFRASTRUCTURE, TEST, PASSED, attempts=2)
    assert (outcome.status, outcome.failure) == ("flaky", "test")
    assert statuses(play(TEST, INFRASTRUCTURE, TIMEOUT, attempts=3)) == ["failed", "failed", "timed out"]


def test_what_passes_at_once_has_one_attempt(play: Play) -> None:
    outcome = play(PASSED, flaky=True, attempts=5)
    assert (outcome.status, statuses(outcome)) == ("passed", ["passed"])


def test_the_log_of_each_attempt_is_kept(play: Play, tmp_path: Path) -> None:
    outcome = play(TEST, INFRASTRUCTURE, PASSED, attempts=2)

    assert outcome.ran is not None
    logs = [attempt.log for attempt in outcome.ran.attempts]
    assert logs == ["attempt_1/test.log", "attempt_2/test.log", "test.log"]
    texts = [(tmp_path / "cell" / log).read_text() for log in logs]
    assert texts == ["assert 1 == 2", "buildkitd ended", "all is well"]
    assert outcome.ran.attempts[0] == Attempt(
        "failed", outcome.ran.attempts[0].seconds, logs[0], "test", "assert 1 == 2"
    )

"""How often a cell runs: decided by the class of what failed, without a cell."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bkrules.cell.protocol import CellResult
from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext
from bkrules.execution.result import Attempt, Outcome
from bkrules.model.action import Action, Cell
from bkrules.model.label import Label
from bkrules.model.parameters import CellLimits, TestCell
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import text_of
from bkrules.plugin.installed import Plugins
from bkrules.runners import test_cell

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
        parameters = TestCell(
            plugin="oci",
            settings={},
            mirror=(),
            plugins=(),
            unsupported=(),
            limits=CellLimits(1 << 30, 100, 1 << 20),
            worker="oci",
            axes={},
            isolation="cell",
            module="p/test_it.py",
            test="test_x",
        )
        action = Action("id", label, "TestCell", (text_of(parameters),), (), ("test.log", "result.json"), cell=cell)
        waiting = iter(ends)

        def one(*arguments: object, **_names: object) -> CellResult:
            end = dict(next(waiting))
            if "raises" in end:
                raise end["raises"]
            Path(str(arguments[3]), "test.log").write_text(end.get("reason", "all is well"))
            end.pop("plant", lambda _: None)(Path(str(arguments[3])))
            return CellResult.parse({"event": "result", **end})

        monkeypatch.setattr(test_cell, "check_machine", lambda *_: None)
        monkeypatch.setattr(test_cell, "run_in_cell", one)
        context = SimpleNamespace(
            test_attempts=attempts, cell_folder=lambda _: tmp_path / "cell", plugins=Plugins({}, {})
        )
        outcome = test_cell.run_test_cell(action, {}, cast(RunContext, context))
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
        Status.FAILED, outcome.ran.attempts[0].seconds, logs[0], FailureClass.TEST, "assert 1 == 2"
    )


def log_is(target: str) -> Callable[[Path], None]:
    def plant(out: Path) -> None:
        (out / "test.log").unlink()
        if target == "fifo":
            os.mkfifo(out / "test.log")
        elif target == "folder":
            (out / "test.log/deep").mkdir(parents=True)
        elif target == "holes":
            os.truncate(os.open(out / "test.log", os.O_CREAT | os.O_WRONLY, 0o644), 1 << 40)
        else:
            (out / "test.log").symlink_to(out.parent / target)

    return plant


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("host", "test.log is a symbolic link"),
        ("new", "test.log is a symbolic link"),
        ("fifo", "test.log is a FIFO"),
        ("folder", "test.log is a folder"),
        ("holes", "test.log has 1048576 MiB"),
    ],
)
@pytest.mark.parametrize("end", [PASSED, TEST], ids=["passed", "failed"])
def test_what_is_no_log_is_neither_read_nor_written_to(
    play: Play, tmp_path: Path, end: dict[str, Any], target: str, said: str
) -> None:
    (tmp_path / "host").write_text("a secret")

    outcome = play({**end, "plant": log_is(target)})

    assert (outcome.status, outcome.failure) == ("failed", "test")
    assert said in outcome.reason or end is TEST
    log = tmp_path / "cell/test.log"
    assert not log.is_symlink()
    assert "secret" not in log.read_text()
    assert said in log.read_text() or end is TEST
    assert (tmp_path / "host").read_text() == "a secret"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["result.json", "timeline.log", "buildkitd.log", "key.json"])
def test_no_file_of_bk_goes_where_a_link_leads(play: Play, tmp_path: Path, name: str) -> None:
    (tmp_path / "host").write_text("a secret")

    def plant(out: Path) -> None:
        (out / name).symlink_to(tmp_path / "host")

    outcome = play({**TEST, "plant": plant})

    assert outcome.status == "failed"
    assert (tmp_path / "host").read_text() == "a secret"
    assert all("secret" not in path.read_text() for path in (tmp_path / "cell").iterdir())


@pytest.mark.parametrize("name", ["result.json", "timeline.log", "key.json"])
def test_a_folder_in_the_place_of_a_file_of_bk_fails_the_test(play: Play, tmp_path: Path, name: str) -> None:
    outcome = play({**PASSED, "plant": lambda out: (out / name / "x").mkdir(parents=True)})

    assert (outcome.status, outcome.failure) == ("failed", "test")
    assert f"{name} is a folder" in outcome.reason
    assert (tmp_path / "cell/result.json").is_file()


def test_attempts_are_kept_although_a_test_has_taken_their_names(play: Play, tmp_path: Path) -> None:
    def plant(out: Path) -> None:
        (out / "attempt_1").mkdir(exist_ok=True)
        (out / "attempt_2").write_text("of the test")

    outcome = play(*({**TEST, "plant": plant},) * 2, {**PASSED}, flaky=True)

    assert outcome.status == "flaky"
    cell = tmp_path / "cell"
    assert sorted(path.name for path in cell.iterdir()) == ["attempt_1", "attempt_2", "result.json", "test.log"]
    assert (cell / "attempt_1/test.log").read_text() == (cell / "attempt_2/test.log").read_text() == "assert 1 == 2"
    assert (cell / "attempt_2/attempt_2").read_text() == "of the test"


NOT_STARTED = {"raises": ActionFailed("registry", "the mirror's registry did not start", log="it has no disk")}


def test_a_registry_that_does_not_start_is_tried_again(play: Play, tmp_path: Path) -> None:
    outcome = play(NOT_STARTED, PASSED)

    assert (outcome.status, outcome.failure) == ("flaky", "infrastructure")
    assert outcome.reason == "passed at attempt 2, after: the mirror's registry did not start"
    assert (tmp_path / "cell/attempt_1/test.log").read_text() == "the mirror's registry did not start\nit has no disk"


def test_a_registry_that_never_starts_is_a_failure_of_infrastructure(play: Play) -> None:
    outcome = play(NOT_STARTED, NOT_STARTED)

    assert (outcome.status, outcome.failure) == ("failed", "infrastructure")
    assert outcome.reason == "the mirror's registry did not start"


def test_another_failure_is_none_of_the_cell(play: Play) -> None:
    with pytest.raises(ActionFailed, match="no such tool"):
        play({"raises": ActionFailed("tool", "no such tool")})

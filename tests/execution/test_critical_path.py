from __future__ import annotations

from collections.abc import Callable

from bkrules.execution.result import Result
from bkrules.model import digest
from bkrules.model.action import Action, Key
from bkrules.model.status import Status
from bkrules.report.critical_path import critical_path

MakeAction = Callable[..., Action]
KEY = Key(digest.of_bytes(b""), {})


def ids(results: list[Result]) -> list[str]:
    return [result.action.id for result in results]


def test_the_longest_chain_and_not_the_longest_action(make_action: MakeAction) -> None:
    results = [
        Result(make_action("a"), Status.PASSED, seconds=2, key=KEY),
        Result(make_action("alone"), Status.PASSED, seconds=3, key=KEY),
        Result(make_action("b", "a"), Status.PASSED, seconds=2, key=KEY),
    ]
    assert ids(critical_path(results)) == ["a", "b"]


def test_what_was_cached_takes_no_time_and_is_not_shown(make_action: MakeAction) -> None:
    results = [
        Result(make_action("a"), Status.PASSED, seconds=1, key=KEY),
        Result(make_action("b", "a"), Status.PASSED, cached=True, seconds=100, key=KEY),
        Result(make_action("c", "b"), Status.FAILED, seconds=1, key=KEY),
        Result(make_action("d"), Status.PASSED, seconds=1.5, key=KEY),
        Result(make_action("e", "c"), Status.NOT_RUN),
    ]
    assert ids(critical_path(results)) == ["a", "c"]


def test_there_is_none_when_nothing_ran(make_action: MakeAction) -> None:
    assert critical_path([Result(make_action("a"), Status.PASSED, cached=True, seconds=1, key=KEY)]) == []
    assert critical_path([]) == []

"""The first bad one of a row, with few questions; failures that may be flaky run again."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.bisection import Answer, Verdict, by_majority, first_bad
from bkrules.build.probes import Memory

GOOD, BAD, UNKNOWN = Verdict.GOOD, Verdict.BAD, Verdict.UNKNOWN


def asked(count: int, bad: int, unknown: frozenset[int] = frozenset()) -> tuple[tuple[int, int], list[int]]:
    """The answer for a row of which the places from `bad` on are bad, and the places that were asked for."""
    places: list[int] = []

    def ask(place: int) -> Verdict:
        assert place not in places, "asked twice"
        places.append(place)
        return UNKNOWN if place in unknown else BAD if place >= bad else GOOD

    return first_bad(count, ask), places


@pytest.mark.parametrize("count", range(2, 66))
def test_the_first_bad_one_is_found_with_few_questions(count: int) -> None:
    for bad in range(1, count):
        answer, places = asked(count, bad)
        assert answer == (bad - 1, bad)
        assert len(places) <= math.ceil(math.log2(count)), "and two more for the ends"


@pytest.mark.parametrize("count", range(2, 8))
def test_places_of_which_nothing_can_be_said_are_stepped_over(count: int) -> None:
    inner = range(1, count - 1)
    for bad in range(1, count):
        for size in range(len(inner) + 1):
            for unknown in map(frozenset, itertools.combinations(inner, size)):
                (good, found), places = asked(count, bad, unknown)
                assert good < bad <= found
                assert set(range(good + 1, found)) <= unknown, "only these are between"
                assert set(places) <= set(inner)


def test_the_neighbour_is_next() -> None:
    assert asked(9, 8, frozenset({4, 3, 5}))[1][:4] == [4, 3, 5, 2]


def runs(*verdicts: Verdict) -> tuple[Callable[[bool], Answer], list[bool]]:
    """A test with these verdicts, and with whether each of its runs was a repeated one."""
    waiting, repeated = list(verdicts), list[bool]()

    def run(is_repeated: bool) -> Answer:
        repeated.append(is_repeated)
        return Answer(waiting.pop(0), f"note {len(repeated)}", 1)

    return run, repeated


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((GOOD,), Answer(GOOD, "note 1", 1)),
        ((UNKNOWN,), Answer(UNKNOWN, "note 1", 1)),
        ((BAD, BAD), Answer(BAD, "note 2", 2)),
        ((BAD, UNKNOWN), Answer(UNKNOWN, "note 2", 2)),
        ((BAD, GOOD, GOOD), Answer(GOOD, "flaky, passed 2 of 3 times", 3)),
        ((BAD, GOOD, BAD), Answer(BAD, "flaky, failed 2 of 3 times", 3)),
        ((BAD, GOOD, UNKNOWN), Answer(UNKNOWN, "note 3", 3)),
    ],
)
def test_a_failure_runs_again_and_the_majority_decides(verdicts: tuple[Verdict, ...], expected: Answer) -> None:
    run, repeated = runs(*verdicts)
    assert by_majority(run) == expected
    assert repeated == [False, *[True] * (len(verdicts) - 1)]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": ["good"]}', '{"a": ["fine", ""]}', "\0"])
def test_a_memory_that_cannot_be_read_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state/bisect").write_text(text)
    memory = Memory.at(tmp_path)

    assert memory.answers == {}
    memory.put("key", Answer(BAD, "why", 2))
    assert Memory.at(tmp_path).get("key") == Answer(BAD, "why")
    assert json.loads((tmp_path / ".state/bisect").read_text()) == {"key": ["bad", "why"]}

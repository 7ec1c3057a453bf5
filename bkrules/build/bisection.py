"""Bisection: the first bad one of a row of revisions, in which all after a bad one are bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The verdict on a revision."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "cannot say"


@dataclass(frozen=True)
class Answer:
    """The answer of a probe. `note` says how; `runs` is how often the cell ran for it."""

    verdict: Verdict
    note: str = ""
    runs: int = 0


def first_bad(count: int, ask: Callable[[int], Verdict]) -> tuple[int, int]:
    """Return the last good and the first bad place among `count`, of which the first is good and the last is bad.

    Between the two are only places of which `ask` cannot say anything; it asks for their neighbours instead.
    """
    good, bad = 0, count - 1
    unknown: set[int] = set()
    while left := [place for place in range(good + 1, bad) if place not in unknown]:
        middle = min(left, key=lambda place: (abs(2 * place - good - bad), place))
        verdict = ask(middle)
        if verdict == Verdict.GOOD:
            good = middle
        elif verdict == Verdict.BAD:
            bad = middle
        else:
            unknown.add(middle)
    return good, bad


def by_majority(run: Callable[[bool], Answer]) -> Answer:
    """Return the answer of a test that may be flaky: a failure runs again, and when it passes then, a third run decides.

    `run` is called with whether the test must run although a result is cached.
    """
    first = run(False)
    if first.verdict != Verdict.BAD:
        return first
    second = run(True)
    if second.verdict != Verdict.GOOD:
        return Answer(second.verdict, second.note, first.runs + second.runs)
    third = run(True)
    runs = first.runs + second.runs + third.runs
    note = f"flaky, {'failed' if third.verdict == Verdict.BAD else 'passed'} 2 of 3 times"
    return Answer(third.verdict, note if third.verdict != Verdict.UNKNOWN else third.note, runs)

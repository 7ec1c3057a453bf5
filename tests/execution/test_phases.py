"""The seconds of the phases of a build."""

from __future__ import annotations

import pytest

from bkrules.execution import phases
from bkrules.execution.phases import Phases


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(phases, "time", clock)
    return clock


def test_what_runs_at_once_counts_once(clock: Clock) -> None:
    measured = Phases()
    first, second, third = (measured.during("TestCell") for _ in range(3))

    for now, enter in ((0, first), (1, second)):
        clock.now = now
        enter.__enter__()
    for now, leave in ((2, first), (5, second)):
        clock.now = now
        leave.__exit__(None, None, None)
    clock.now = 10
    with third:
        clock.now = 11

    assert measured.seconds() == (("TestCell", 6),)


def test_a_phase_inside_of_another_is_not_part_of_it(clock: Clock) -> None:
    measured = Phases()

    with measured.during("analysis"):
        clock.now = 1
        with pytest.raises(KeyError), measured.outside("analysis"), measured.during("GoBuild"):
            clock.now = 4
            raise KeyError
        clock.now = 4.5

    assert measured.seconds() == (("analysis", 1.5), ("GoBuild", 3))

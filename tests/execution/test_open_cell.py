"""What bk makes of a cell that says nothing more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bkrules.cell import said
from bkrules.errors import Interrupted
from bkrules.runners import open_cell
from bkrules.runners.open_cell import OpenCell
from bkrules.sandbox.spawner import Started

AT_ONCE = -open_cell._GRACE
"""Seconds after which nothing more is waited for, with the time that bk gives each cell to end."""


class Processes:
    """bk's processes, of which nothing is known but whether they were interrupted."""

    def __init__(self, interrupted: bool = False) -> None:
        self.interrupted = interrupted

    def fate(self) -> str:
        return ""


class RunContext:
    def __init__(self, interrupted: bool = False) -> None:
        self.processes = Processes(interrupted)


@pytest.fixture(name="ends")
def _ends() -> Iterator[tuple[OpenCell, socket.socket]]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, open(os.devnull, "rb") as death:
        started = Started(here, death.fileno())
        yield OpenCell(started, None, RunContext(), []), there  # type: ignore[arg-type]


@pytest.mark.parametrize("program", ["test", "tests", "session"])
def test_a_cell_that_does_not_end_in_time_has_a_whole_result(
    ends: tuple[OpenCell, socket.socket], program: str
) -> None:
    message = ends[0].message(AT_ONCE)
    assert said.checked(message, program) == "result"
    assert (message["status"], message["class"]) == ("timed out", "infrastructure")
    assert message["reason"] == "the cell did not end in time, and was ended"


def test_a_cell_that_ends_without_a_word_has_a_whole_result(ends: tuple[OpenCell, socket.socket]) -> None:
    cell, there = ends
    there.close()
    message = cell.message(0)
    assert said.checked(message, "test") == "result"
    assert (message["status"], message["class"]) == ("failed", "infrastructure")


def test_a_cell_that_ends_by_an_interrupt_raises(ends: tuple[OpenCell, socket.socket]) -> None:
    cell, there = ends
    cell.context = RunContext(interrupted=True)  # type: ignore[assignment]
    there.close()
    with pytest.raises(Interrupted):
        cell.message(0)

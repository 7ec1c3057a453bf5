"""What bk makes of a cell that says nothing more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bkrules.cell.protocol import CellResult, End, Mirror, Program, Root, said_by_cell
from bkrules.errors import Interrupted
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire
from bkrules.runners import open_cell
from bkrules.runners.open_cell import OpenCell
from bkrules.sandbox.ipc import send
from bkrules.sandbox.started import Started

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


@pytest.mark.parametrize("program", list(Program))
def test_a_cell_that_does_not_end_in_time_has_a_whole_result(
    ends: tuple[OpenCell, socket.socket], program: Program
) -> None:
    message = ends[0].message(AT_ONCE)
    assert said_by_cell(message.to(), program) == message
    assert message == CellResult(
        Status.TIMED_OUT, FailureClass.INFRASTRUCTURE, "the cell did not end in time, and was ended"
    )


def test_a_cell_that_ends_without_a_word_has_a_whole_result(ends: tuple[OpenCell, socket.socket]) -> None:
    cell, there = ends
    there.close()
    message = cell.message(0)
    assert said_by_cell(message.to(), Program.TEST) == message
    assert message == CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE, "the cell ended without a result")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (End(), "it is not a message of the kind 'mirror' or 'ready' or 'cell' or 'result'"),
        (Root(7), "it is not a message of the kind"),
        (Mirror(), "it comes without the socket of the mirror"),
    ],
    ids=["end", "root", "mirror"],
)
def test_what_bk_cannot_read_is_a_failure_of_the_infrastructure(
    ends: tuple[OpenCell, socket.socket], message: Wire, reason: str
) -> None:
    cell, there = ends
    send(there, message)
    result = cell.message(0)
    assert isinstance(result, CellResult)
    assert (result.status, result.failure) == (Status.FAILED, FailureClass.INFRASTRUCTURE)
    assert result.reason.startswith("its supervisor sent a message that bk cannot read: ")
    assert reason in result.reason


def test_bytes_that_are_no_message_are_a_failure_of_the_infrastructure(ends: tuple[OpenCell, socket.socket]) -> None:
    cell, there = ends
    there.send(b"\xff{")
    result = cell.message(0)
    assert isinstance(result, CellResult)
    assert (result.status, result.failure) == (Status.FAILED, FailureClass.INFRASTRUCTURE)


def test_a_cell_that_ends_by_an_interrupt_raises(ends: tuple[OpenCell, socket.socket]) -> None:
    cell, there = ends
    cell.context = RunContext(interrupted=True)  # type: ignore[assignment]
    there.close()
    with pytest.raises(Interrupted):
        cell.message(0)

"""A test's questions to the first process of its cell, with both ends in this process."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bkrules.plugin.daemon import Daemons
from bkrules.sandbox.ipc import receive, send
from bkrules.testing.control import Answer, Control, ControlFailed, StartDaemon, answer


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        yield near, far


def test_what_a_daemon_says_is_raised_in_the_test(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    control = Control(["one"], far)
    with pytest.raises(ControlFailed, match="'other' is not a daemon of this cell; running are: nothing"):
        _asked(near, lambda: control.stop("other", signal.SIGTERM))
    with pytest.raises(ControlFailed, match="'one' was not stopped; stopped are: nothing"):
        _asked(near, lambda: control.start("one"))
    with pytest.raises(ControlFailed, match="no extra worker is called 'oci': this matrix has no 'extra_workers'"):
        _asked(near, lambda: control.start_worker("oci", ""))


def _asked(near: socket.socket, ask: Callable[[], object]) -> None:
    answering = threading.Thread(target=answer, args=(near, Daemons({}), 1))
    answering.start()
    try:
        ask()
    finally:
        answering.join()


def test_a_test_that_ends_asks_no_more(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    far.close()
    assert not answer(near, Daemons({}), 1)


def test_a_test_that_ends_before_it_is_answered_is_no_error(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    send(far, StartDaemon("one"))
    far.close()
    assert not answer(near, Daemons({}), 1)


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (b"\xff{", "it is not a message"),
        (b"[]", "it has no fields"),
        (b"{}", "it is not a message of the kind 'stop' or 'start' or 'worker' or 'failure'"),
        (b'{"ask": "stop", "name": "one"}', "the field 'number' is missing"),
        (b'{"ask": "stop", "name": "one", "number": 4711}', "4711 is not allowed"),
        (b'{"ask": "start", "name": ["one"]}', "the field 'name' is malformed"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered(
    ends: tuple[socket.socket, socket.socket], question: bytes, problem: str
) -> None:
    near, far = ends
    far.send(question)
    assert answer(near, Daemons({}), 1)
    document, _ = receive(far)
    assert problem in Answer.parse(document).error


def test_an_answer_that_nobody_read_is_no_error(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    send(near, Answer())
    far.close()
    assert not answer(near, Daemons({}), 1)

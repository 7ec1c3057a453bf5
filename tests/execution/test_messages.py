from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bkrules.model.wire import Wire
from bkrules.sandbox.ipc import receive, send


class Raw(Wire):
    """A message of any form."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def to(self) -> dict[str, object]:
        return self.fields


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        yield near, far


def test_messages_arrive_one_by_one(pair: Pair) -> None:
    near, far = pair
    messages: list[dict[str, Any]] = [
        {"event": "root", "device": 7},
        {},
        {"text": "\u00fc\n" * 10_000, "list": [None, 1.5]},
    ]

    for message in messages:
        send(near, Raw(**message))

    assert [receive(far) for _ in messages] == [(message, []) for message in messages]


def test_descriptors_arrive_with_their_message(pair: Pair) -> None:
    near, far = pair
    pipes = [os.pipe() for _ in range(4)]
    send(near, Raw(first=True), tuple(write for _, write in pipes))
    send(near, Raw(second=True))
    for _, write in pipes:
        os.close(write)

    message, received = receive(far)

    assert (message, len(received)) == ({"first": True}, 4)
    assert receive(far) == ({"second": True}, [])
    for (read, _), write in zip(pipes, received, strict=True):
        assert fcntl.fcntl(write, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        os.write(write, b"x")
        os.close(write)
        assert os.read(read, 9) == b"x"
        assert os.read(read, 9) == b""  # nobody else has the other end
        os.close(read)


def test_there_is_no_message_at_the_end(pair: Pair) -> None:
    near, far = pair
    send(near, Raw(last=True))
    near.close()

    assert receive(far) == ({"last": True}, [])
    assert receive(far) == (None, [])


def test_nobody_there_is_an_error(pair: Pair) -> None:
    near, far = pair
    far.close()

    with pytest.raises(BrokenPipeError):
        send(near, Raw())


def test_a_message_may_be_longer_than_a_socket_takes() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, open("/dev/null") as null:
        send(near, Raw(text="x" * 3_000_000), (null.fileno(),))
        send(near, Raw(next=1))
        message, descriptors = receive(far)
        assert message == {"text": "x" * 3_000_000}
        assert len(descriptors) == 1
        os.close(descriptors[0])
        assert receive(far) == ({"next": 1}, [])

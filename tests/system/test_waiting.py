"""The wait for descriptors of any number, and what waits by it."""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bkrules.commands.terminal import relay
from bkrules.system.waiting import readable

HIGH = 2000
"""select() takes no descriptor from 1024 on."""


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def high(descriptor: int) -> Iterator[int]:
    """A copy of a descriptor with a high number, in place of it."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(descriptor)
    try:
        yield copy
    finally:
        os.close(copy)


def test_a_high_descriptor_is_waited_for() -> None:
    low, writer = os.pipe()
    with high(low) as reader, os.fdopen(writer, "wb", buffering=0) as file:
        assert readable([reader], 0) == []
        assert readable([reader], -1) == []
        file.write(b"x")
        assert readable([reader]) == [reader]
        os.read(reader, 1)
        file.close()
        assert readable([reader], 20) == [reader], "its end counts too"


def test_a_terminal_with_a_high_descriptor_is_relayed() -> None:
    user, terminal = pty.openpty()
    cell, inside = pty.openpty()
    with high(terminal) as typed, high(cell) as shown, os.fdopen(user, "r+b", buffering=0) as screen:
        thread = threading.Thread(target=_answer, args=(inside,))
        screen.write(b"who\n")
        thread.start()
        relay(typed, shown)
        thread.join()
        printed = b""
        while not printed.endswith(b"it is me\r\n") and readable([screen.fileno()], 20):
            printed += os.read(screen.fileno(), 100)
        assert printed.endswith(b"it is me\r\n")


def _answer(inside: int) -> None:
    with os.fdopen(inside, "r+b", buffering=0) as file:
        assert file.readline() == b"who\n"
        file.write(b"it is me\n")


def test_nothing_waits_by_select() -> None:
    root = Path(__file__).parents[2] / "bkrules"
    assert [path for path in root.rglob("*.py") if "select.select(" in path.read_text()] == []

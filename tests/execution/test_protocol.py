"""What a cell says of itself: a test in it can say anything, and nobody outside believes that it has a form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bare_cells import BareCells
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.cell.protocol import CLASSES, STATUSES, CellResult, Outcome, Program, said_by_cell

GOOD: list[dict[str, Any]] = [
    {"event": "root", "device": 7},
    {"event": "ready", "address": "unix:///x", "environment": {"A": "b"}},
    {"event": "cell", "status": "passed", "tainted": ["mounts"], "began": 1.5},
    {"event": "result", "status": "failed", "class": "test", "reason": "x", "fuse": [3], "seconds": {"run": 0.1}},
]
BAD: dict[str, dict[str, Any]] = {
    "no event": {},
    "an event of the supervisor's own": {"event": "mirror"},
    "an event that is a list": {"event": ["root"]},
    "no status": {"event": "result"},
    "a status of bk's own": {"event": "result", "status": "flaky"},
    "a status that is a list": {"event": "result", "status": ["passed"]},
    "a class that is an object": {"event": "result", "status": "failed", "class": {"a": 1}},
    "a class that the supervisor gives": {"event": "result", "status": "failed", "class": "leak"},
    "a reason that is a number": {"event": "result", "status": "failed", "reason": 7},
    "a number for connections": {"event": "result", "status": "passed", "fuse": 5},
    "a path for a connection": {"event": "result", "status": "passed", "fuse": ["../../x"]},
    "a connection below 0": {"event": "result", "status": "passed", "fuse": [-1]},
    "a truth for a connection": {"event": "result", "status": "passed", "fuse": [True]},
    "a text for a time": {"event": "result", "status": "passed", "began": "x"},
    "no finite time": {"event": "result", "status": "passed", "began": float("inf")},
    "egress, which only the supervisor sees": {
        **{"event": "result", "status": "passed"},
        "egress": [{"who": "a", "what": "b"}],
    },
    "ready, in a cell that is no session": {"event": "ready", "address": "x", "environment": {}},
    "the result of one test of many": {"event": "cell", "status": "passed", "tainted": []},
    "a device that is a text": {"event": "root", "device": "7"},
    "a field that nobody knows": {"event": "result", "status": "passed", "surprise": 1},
    "an environment of numbers": {"event": "ready", "address": "x", "environment": {"A": 1}},
}


BAD_WORDS = r"it is not a message of the kind|is missing|is malformed|is unknown|by itself|only the supervisor sets"


@pytest.mark.parametrize("message", GOOD, ids=str)
def test_what_a_cell_says(message: dict[str, Any]) -> None:
    program = {"ready": Program.SESSION, "cell": Program.TESTS}.get(message["event"], Program.TEST)
    assert said_by_cell(message, program).to() == message


@pytest.mark.parametrize("kind", BAD)
def test_what_no_cell_says(kind: str) -> None:
    with pytest.raises(ValueError, match=BAD_WORDS):
        said_by_cell(BAD[kind], Program.TEST)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NAMES = st.sampled_from(
    ["event", "status", "class", "reason", "missing", "tainted", "fuse", "seconds", "began", "device"]
)
WORDS = st.sampled_from(["root", "ready", "cell", "result", *STATUSES, *CLASSES])


@settings(max_examples=rounds(300))
@given(st.dictionaries(NAMES, JSON | WORDS))
def test_any_message_is_taken_or_refused(message: dict[str, Any]) -> None:
    try:
        found = said_by_cell(message, Program.TESTS)
    except ValueError:
        return
    assert type(found).TAG[1] == message["event"]
    if isinstance(found, CellResult):
        assert found.status in STATUSES
        assert found.failure in CLASSES
        hash((found.reason, found.missing, found.fuse, found.tainted))
    assert said_by_cell(found.to(), Program.TESTS) == found


@settings(max_examples=rounds(300))
@given(st.binary() | st.dictionaries(NAMES, JSON | WORDS).map(lambda one: json.dumps(one).encode()))
def test_any_outcome_is_taken_or_left(data: bytes) -> None:
    found = Outcome.read(data)
    assert found is None or (found.status in STATUSES and found.failure in CLASSES)


def test_an_outcome_that_is_nested_is_left_and_one_that_is_long_is_cut() -> None:
    assert Outcome.read(b"[" * 100_000) is None
    long = Outcome.read(json.dumps({"status": "failed", "reason": "x" * (1 << 20)}).encode())
    assert long is not None
    assert len(long.reason) == 1 << 16


SPEAK = '''
import array, ctypes, json, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)

def call(*words):
    found = libc.syscall(*words)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return found

def say(data, *descriptors):
    """Speak as the cell's first process, by each socket that it has."""
    first = call(434, 1, 0)  # pidfd_open
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    for name in os.listdir("/proc/1/fd"):
        if os.readlink("/proc/1/fd/" + name).startswith("socket:"):
            with socket.socket(fileno=call(438, first, int(name), 0)) as channel:  # pidfd_getfd
                channel.sendmsg([data if isinstance(data, bytes) else json.dumps(data).encode()], rights)

def memory(data=b"", size=0):
    descriptor = os.memfd_create("x")
    os.write(descriptor, data)
    os.truncate(descriptor, max(size, len(data)))
    return descriptor

def fifo():
    os.mkfifo("/fifo")
    return os.open("/fifo", os.O_RDWR)
'''
SPOKEN = {
    "bytes": r'say(b"\xff{")',
    "a list": "say([1])",
    "a number": "say(7)",
    "nothing of a message": "say({})",
    "another event": 'say({"event": "mirror"})',
    "a second root": 'say({"event": "root", "device": 1}, os.open("/", 0))',
    "a root without a folder": 'say({"event": "root", "device": 1})',
    "a result without a status": 'say({"event": "result"})',
    "a long message without a file": 'say({"long message": 100})',
    "one of 1 TiB": 'say({"long message": 1 << 40}, memory(size=1 << 40))',
    "one below 0": 'say({"long message": -1}, memory())',
    "one in a FIFO": 'say({"long message": 10}, fifo())',
    "one that is nested": 'say({"long message": 200_000}, memory(b"[" * 200_000))',
}


@pytest.mark.parametrize("kind", SPOKEN)
def test_who_speaks_for_the_first_process_has_failed(cells: BareCells, kind: str) -> None:
    """Before the test's time is over, and with a reason: the supervisor lives on, and looks for what the cell left."""
    body = f"    {SPOKEN[kind]}\n    time.sleep(60)\n"

    result = cells.run(f"{SPEAK}\ndef test_it():\n{body}")

    assert (result["status"], result["class"]) == ("failed", "test"), result
    assert result["reason"].startswith("a test spoke in the name of its cell's first process: ")


def test_a_result_that_was_forged_ends_the_cell(cells: BareCells) -> None:
    test = f'{SPEAK}\ndef test_it():\n    say({{"event": "result", "status": "passed", "fuse": [1]}})\n    time.sleep(60)\n'

    result = cells.run(test, timeout=300)  # and the test knows of no 60 s

    assert "seconds" not in result


@pytest.mark.parametrize("log", ["os.mkfifo(LOG)", "os.mkdir(LOG)", 'os.symlink("x.log", LOG)', "zero()", "hole()"])
def test_a_strange_log_changes_no_failure(cells: BareCells, log: str) -> None:
    """The logs of a failed test are searched for what it ran out of."""
    test = f"""
import os
LOG = "/out/x.log"
def zero():
    os.symlink("/dev/zero", LOG)
def hole():
    with open(LOG, "w") as file:
        file.truncate(1 << 40)
def test_it():
    {log}
    raise AssertionError("as it was")
"""
    result = cells.run(test)

    assert result["status"] == "failed", result
    assert result["class"] == ("leak" if "fifo" in log else "test"), result
    assert "fifo" in log or "as it was" in result["reason"]

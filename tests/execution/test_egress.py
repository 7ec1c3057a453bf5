"""Attempts to leave a cell: eBPF on a real cgroup, and a name server in a new network namespace."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import cgroup_name

from bkrules.cell.egress import Watch, question, question_end
from bkrules.cell.protocol import Attempt
from bkrules.plugin.host import probe
from bkrules.sandbox import cgroups

# In that cgroup, with that name, and in a network without a way out: prints what came of each line of the rest.
IN_GROUP = """
import json, os, socket, sys
from bkrules.sandbox import syscalls
folder, name, script = sys.argv[1:]
with open(f"{folder}/cgroup.procs", "w") as procs:
    procs.write("0")
syscalls.leave_network()
syscalls.set_name(name)
outcomes = []
for family, kind, method, host, port in json.loads(script):
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as one:
        try:
            one.connect((host, port)) if method == "connect" else one.sendto(b"x", (host, port))
            outcomes.append("")
        except OSError as error:
            outcomes.append(type(error).__name__ + " " + str(error.errno))
print(json.dumps(outcomes))
"""

# Asks the name server of a new network, once for each word; prints the answers that askers got, and the server's record.
IN_NETWORK = """
import json, os, socket, sys
from bkrules.sandbox import syscalls
from bkrules.cell.egress import NameServer
query = bytes.fromhex(sys.argv[1])
syscalls.leave_network()
server = NameServer()
for word in sys.argv[2:]:
    waits = word == "waits"
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pid = os.fork()
    if pid == 0:
        server.socket.close()
        syscalls.set_name("asker")
        asking.sendto(query, ("127.0.0.1", 53))
        if not waits:
            os._exit(0)
        asking.settimeout(1)
        try:
            answer = asking.recv(4096)
        except TimeoutError:
            answer = b""
        print(answer.hex(), flush=True)
        os._exit(0)
    asking.close()
    if not waits:
        os.waitpid(pid, 0)
    server.answer([os.getpid(), pid, 1 << 30])
    if waits:
        os.waitpid(pid, 0)
server.socket.close()
print(json.dumps([[one.who, one.what] for one in server.asked]))
"""

UNREACHABLE, REFUSED = "OSError 101", "ConnectionRefusedError 111"


@pytest.fixture
def group() -> Iterator[str]:
    host = probe()
    if lacks := host.lacks():
        pytest.skip("; ".join(map(str, lacks)))
    path = f"{host.cgroup}/{cgroup_name()}"
    os.makedirs(f"{path}/init")
    os.makedirs(f"{path}/buildkit/step")
    yield path
    cgroups.remove(path)


def knock(folder: str, name: str, *script: tuple[str, str, str, str, int]) -> list[str]:
    command = [sys.executable, "-I", "-c", IN_GROUP, folder, name, json.dumps(script)]
    outcomes: list[str] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return outcomes


def ask(query: bytes, *askers: str) -> tuple[bytes, list[Attempt]]:
    command = [sys.executable, "-I", "-c", IN_NETWORK, query.hex(), *(askers or ["waits"])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *answer, asked = done.stdout.splitlines()
    return bytes.fromhex("".join(answer)), [Attempt(*one) for one in json.loads(asked)]


def query_of(name: str, kind: int = 1, *, more: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    head = struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 1 if more else 0)
    return head + labels + b"\0" + struct.pack(">HH", kind, 1) + more


def test_who_tries_to_leave_is_written_down_and_fails_as_ever(group: str) -> None:
    watch = Watch(group)

    outcomes = knock(
        f"{group}/init",
        "knocker",
        ("AF_INET", "SOCK_STREAM", "connect", "192.0.2.1", 80),
        ("AF_INET", "SOCK_STREAM", "connect", "192.0.2.1", 80),
        ("AF_INET", "SOCK_DGRAM", "connect", "192.0.2.2", 8080),
        ("AF_INET", "SOCK_DGRAM", "send", "192.0.2.3", 53),
        ("AF_INET6", "SOCK_STREAM", "connect", "2001:db8::1", 443),
        ("AF_INET6", "SOCK_DGRAM", "send", "2001:db8::2", 65535),
        ("AF_INET6", "SOCK_STREAM", "connect", "::ffff:192.0.2.4", 22),
    )

    assert outcomes == [UNREACHABLE] * 7
    assert watch.attempts() == [
        Attempt("knocker", "tcp 192.0.2.1:80"),
        Attempt("knocker", "tcp 192.0.2.4:22"),
        Attempt("knocker", "tcp [2001:db8::1]:443"),
        Attempt("knocker", "udp 192.0.2.2:8080"),
        Attempt("knocker", "udp 192.0.2.3:53"),
        Attempt("knocker", "udp [2001:db8::2]:65535"),
    ]
    assert str(watch.attempts()[0]) == "knocker tried to reach tcp 192.0.2.1:80"


def test_what_stays_in_the_cell_is_not_an_attempt(group: str) -> None:
    watch = Watch(group)

    outcomes = knock(
        f"{group}/init",
        "knocker",
        ("AF_INET", "SOCK_STREAM", "connect", "127.0.0.1", 1),
        ("AF_INET", "SOCK_STREAM", "connect", "127.9.9.9", 1),
        ("AF_INET", "SOCK_STREAM", "connect", "0.0.0.0", 1),
        ("AF_INET6", "SOCK_STREAM", "connect", "::1", 1),
        ("AF_INET6", "SOCK_STREAM", "connect", "::", 1),
        ("AF_INET6", "SOCK_STREAM", "connect", "::ffff:127.0.0.1", 1),
        ("AF_INET", "SOCK_DGRAM", "send", "127.0.0.1", 1),
    )

    assert outcomes == [REFUSED] * 6 + [""]
    assert watch.attempts() == []


def test_a_run_step_is_told_from_the_test(group: str) -> None:
    watch = Watch(group)
    away = ("AF_INET", "SOCK_STREAM", "connect", "192.0.2.1", 80)

    knock(f"{group}/buildkit/step", "wget", away)
    knock(f"{group}/init", "test", away)

    assert [one.who for one in watch.attempts()] == ["a RUN step (wget)", "test"]


def test_another_cells_attempts_are_not_this_ones(group: str) -> None:
    watch = Watch(f"{group}/buildkit")
    os.mkdir(f"{group}/buildkit/init")

    knock(f"{group}/init", "stranger", ("AF_INET", "SOCK_STREAM", "connect", "192.0.2.1", 80))

    assert watch.attempts() == []


def test_only_a_cgroup_can_be_watched(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="bpf"):
        Watch(str(tmp_path))


@pytest.mark.parametrize("more", [b"", b"\0\0\x29\x10\0\0\0\0\0\0\0"], ids=["plain", "with EDNS"])
def test_no_name_exists_and_who_asked_is_kept(more: bytes) -> None:
    query = query_of("registry.example.com", 28, more=more)

    answer, asked = ask(query)

    assert asked == [Attempt("asker", "registry.example.com")]
    number, flags, *counts = struct.unpack(">HHHHHH", answer[:12])
    assert (number, flags & 0x8000, flags & 0xF, counts) == (0x1234, 0x8000, 3, [1, 0, 0, 0])
    assert answer[12:] == query_of("registry.example.com", 28)[12:]


def test_a_question_of_one_that_has_ended_is_kept_too() -> None:
    answer, asked = ask(query_of("example.com"), "ends")

    assert (answer, asked) == (b"", [Attempt("a process that no longer waits", "example.com")])


def test_a_question_is_repeated_by_the_process_that_asked_it_before() -> None:
    _, asked = ask(query_of("example.com"), "ends", "waits", "ends")

    assert asked == [Attempt("asker", "example.com")]


def test_what_is_no_question_is_not_answered() -> None:
    assert ask(b"nonsense") == (b"", [])


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (query_of("example.com"), "example.com"),
        (query_of("localhost", 28), "localhost"),
        (query_of("a.b.c.d.example"), "a.b.c.d.example"),
        (query_of("example.com", more=b"more"), "example.com"),
        (query_of("example.com")[:-1], None),
        (query_of("example.com")[:20], None),
        (query_of("example.com")[:4] + b"\0\2" + query_of("example.com")[6:], None),
        (query_of("\u00fc.com".encode().decode("latin-1")), None),
        (b"", None),
    ],
)
def test_the_name_that_a_query_asks_for(query: bytes, name: str | None) -> None:
    assert question(query) == name


@given(
    st.lists(
        st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=63)
    ),
    st.binary(max_size=40),
)
def test_a_question_ends_where_the_rest_of_the_query_begins(labels: list[str], more: bytes) -> None:
    name = ".".join(labels)
    query = query_of(name, more=more)

    assert question(query) == name
    assert query[question_end(query) :] == more


@given(st.binary())
def test_no_bytes_are_too_odd_to_be_looked_at(rest: bytes) -> None:
    name = question(b"\0\0\0\0\0\1" + rest)

    assert name is None or len(name) < len(rest)

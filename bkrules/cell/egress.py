"""Egress: attempts to leave a cell.

None can succeed: a cell's network has no way out. For the report, bk watches two things.

- Each connect(2), and each datagram, to an address that is not a loopback one (raw sockets excepted): a small eBPF
program on the cell's cgroup records the process and the address. The kernel then refuses, as it would without the
program.

- Each question to the name server: the answer is that no such name exists, and the name is recorded with the process
that asked.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bkrules.cell.protocol import Attempt
from bkrules.sandbox import syscalls

_ENTRIES = 1024
_DNS_PORT = 53
_UNKNOWN = "a process that no longer waits"
_NO_SUCH_NAME = 0x8183  # a response, recursion desired and available, NXDOMAIN

# A key of the map: the process's cgroup, its name, the address in four words, the port, the protocol.
_KEY = struct.Struct("=Q16s16sII")
_GROUP, _NAME, _ADDRESS, _PORT, _PROTOCOL = 0, 8, 24, 40, 44

# linux/bpf.h: commands, kinds, helper functions, and offsets in struct bpf_sock_addr.
_MAP_CREATE, _MAP_NEXT_KEY = 0, 4
_LRU_HASH, _CGROUP_SOCK_ADDR = 9, 18
_UPDATE_ELEMENT, _CURRENT_COMM, _CURRENT_CGROUP = 2, 16, 80
_USER_IP4, _USER_IP6, _USER_PORT, _USER_PROTOCOL = 4, 8, 24, 36
# Attach point: the number of words of the address. They are connect4, connect6, sendmsg4, sendmsg6.
_POINTS = {10: 1, 11: 4, 14: 1, 15: 4}

# The machine's operations, and its registers: r6 is preserved over calls, r10 is the frame.
_LOAD, _STORE, _STORE_LONG, _STORE_VALUE = 0x61, 0x63, 0x7B, 0x62
_COPY, _SET, _ADD, _AND, _SKIP_IF_EQUAL, _LOAD_MAP, _CALL, _EXIT = 0xBF, 0xB7, 0x07, 0x57, 0x15, 0x18, 0x85, 0x95
_CONTEXT, _FRAME = 6, 10


class Watch:
    """The programs on one cell's cgroup. Raises OSError when the kernel has no eBPF for cgroups or does not allow it."""

    def __init__(self, cgroup: str) -> None:
        self._cgroup = cgroup
        self._map = syscalls.bpf(_MAP_CREATE, struct.pack("=IIIII", _LRU_HASH, _KEY.size, 8, _ENTRIES, 0))
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for point, words in _POINTS.items():
                syscalls.attach_program(folder, _program(self._map, words), _CGROUP_SOCK_ADDR, point, b"bk_egress")
        finally:
            os.close(folder)

    def attempts(self) -> list[Attempt]:
        """Return the attempts so far, sorted."""
        own = os.stat(f"{self._cgroup}/init").st_ino
        found = set()
        for group, name, address, port, protocol in (_KEY.unpack(key) for key in self._keys()):
            ip = _address(address)
            if ip.is_loopback or ip.is_unspecified:
                continue
            process = name.partition(b"\0")[0].decode(errors="replace")
            who = process if group == own else f"a RUN step ({process})"
            shown = f"[{ip}]" if ip.version == 6 else str(ip)
            kind = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}.get(protocol, f"protocol {protocol}")
            found.add(Attempt(who, f"{kind} {shown}:{socket.ntohs(port)}"))
        return sorted(found)

    def _keys(self) -> Iterable[bytes]:
        key = b""
        following = ctypes.create_string_buffer(_KEY.size)
        while True:
            current = ctypes.create_string_buffer(key, _KEY.size)
            start = ctypes.addressof(current) if key else 0
            try:
                syscalls.bpf(_MAP_NEXT_KEY, struct.pack("=IIQQQ", self._map, 0, start, ctypes.addressof(following), 0))
            except FileNotFoundError:
                return
            key = following.raw
            yield key


def _address(data: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the four words of an address: IPv6, or IPv4 with the last word all ones, which no IPv6 host has."""
    if data[12:] == b"\xff" * 4 and not any(data[4:12]):
        return ipaddress.IPv4Address(data[:4])
    ip = ipaddress.IPv6Address(data)
    return ip.ipv4_mapped or ip


def _program(table: int, words: int) -> bytes:
    """Return a program that puts (cgroup, name, address, port, protocol) of a call into the map `table`, and allows the call."""
    step = syscalls.program_step
    key = -_KEY.size
    value = key - 8
    steps = [step(_COPY, _CONTEXT, 1)]
    record = []
    if words == 1:
        record += [step(_STORE_VALUE, _FRAME, 0, key + _ADDRESS + 4 * word, -(word == 3)) for word in (1, 2, 3)]
    first = _USER_IP4 if words == 1 else _USER_IP6
    fields = [(first + 4 * word, _ADDRESS + 4 * word) for word in range(words)]
    for offset, place in [*fields, (_USER_PORT, _PORT), (_USER_PROTOCOL, _PROTOCOL)]:
        record += [step(_LOAD, 1, _CONTEXT, offset), step(_STORE, _FRAME, 1, key + place)]
    record += [step(_CALL, value=_CURRENT_CGROUP), step(_STORE_LONG, _FRAME, 0, key + _GROUP)]
    record += [step(_COPY, 1, _FRAME), step(_ADD, 1, value=key + _NAME), step(_SET, 2, value=16)]
    record += [step(_CALL, value=_CURRENT_COMM)]
    record += [step(_SET, 1, value=1), step(_STORE_LONG, _FRAME, 1, value)]
    record += [step(_LOAD_MAP, 1, 1, value=table), step(0)]
    record += [step(_COPY, 2, _FRAME), step(_ADD, 2, value=key), step(_COPY, 3, _FRAME), step(_ADD, 3, value=value)]
    record += [step(_SET, 4), step(_CALL, value=_UPDATE_ELEMENT)]
    if words == 1:  # 127.0.0.0/8, above all the mirror, is not recorded
        steps += [step(_LOAD, 1, _CONTEXT, _USER_IP4), step(_AND, 1, value=0xFF)]
        steps += [step(_SKIP_IF_EQUAL, 1, 0, len(record), 127)]
    return b"".join([*steps, *record, step(_SET, 0, value=1), step(_EXIT)])


class NameServer:
    """Answers each question in this network namespace with "no such name". Call `answer` when `socket` is readable."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", _DNS_PORT))
        self._asked: set[Attempt] = set()

    @property
    def asked(self) -> set[Attempt]:
        """The names that were asked for, and by which processes.

        A resolver that no longer waits has closed its socket, by which its process is found. Such a question counts as one
        of the processes that asked for the same name.
        """
        known = {attempt.what for attempt in self._asked if attempt.who != _UNKNOWN}
        return {attempt for attempt in self._asked if attempt.who != _UNKNOWN or attempt.what not in known}

    def answer(self, processes: Iterable[int]) -> None:
        """Answer one question; `processes` are those among which the asking one is searched."""
        query, (_, port) = self.socket.recvfrom(4096)
        name = question(query)
        if name is None:
            return
        if len(self._asked) < _ENTRIES:
            self._asked.add(Attempt(_owner(port, processes) or _UNKNOWN, name or "."))
        head = struct.pack(">2sHHHHH", query[:2], _NO_SUCH_NAME, 1, 0, 0, 0)
        with suppress(OSError):  # it no longer waits
            self.socket.sendto(head + query[12 : question_end(query)], ("127.0.0.1", port))


def question(query: bytes) -> str | None:
    """Return the name in a DNS query; empty when it is not a well-formed query of one question."""
    labels = []
    place = 12
    try:
        if query[4:6] != b"\0\1":
            return None
        while size := query[place]:
            labels.append(query[place + 1 : place + 1 + size].decode("ascii"))
            place += 1 + size
    except (IndexError, UnicodeDecodeError):
        return None
    return ".".join(labels) if len(query) >= place + 5 else None


def question_end(query: bytes) -> int:
    """Return the end of the question in a well-formed query: after its name, type and class."""
    return query.index(0, 12) + 5


def _owner(port: int, processes: Iterable[int]) -> str:
    """Return the name of the process whose UDP socket has that port."""
    wanted = f":{port:04X}"
    inodes = {
        f"socket:[{fields[9]}]"
        for table in ("udp", "udp6")
        for fields in map(str.split, _lines(f"/proc/self/net/{table}"))
        if fields[1].endswith(wanted)
    }
    for pid in processes:
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in inodes:
                    return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _lines(path: str) -> list[str]:
    with suppress(FileNotFoundError):
        return Path(path).read_text().splitlines()[1:]
    return []

"""A network of rootlesskit in the cell's network: it ends there, and has no way out."""

import ctypes
import os
import re
import socket
from pathlib import Path

import pytest
from processes import named

from bkrules.testing.sandbox import Sandbox

KIT = Path("/run/bk/user/rootlesskit")
CLONE_NEWNET = 0x40000000
NETWORK = "10.0.2"


@pytest.fixture
def child() -> str:
    """The process in rootlesskit's namespaces, as a path in /proc."""
    return f"/proc/{(KIT / 'child_pid').read_text()}"


@pytest.fixture
def detached(child: str) -> None:
    """Move this test into rootlesskit's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"{child}/root{KIT}/netns") as namespace:
        assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def test_buildkitd_stays_in_the_cells_network(sandbox: Sandbox, child: str) -> None:
    assert sandbox.backend.netns_detached
    (buildkitd,) = named("buildkitd")
    assert os.readlink(buildkitd / "ns/net") == os.readlink("/proc/self/ns/net")
    assert os.stat(f"{child}/root{KIT}/netns").st_ino != os.stat("/proc/self/ns/net").st_ino


@pytest.mark.usefixtures("detached")
def test_the_detached_network_leads_nowhere(sandbox: Sandbox) -> None:
    """Neither out of the cell, nor to its loopback, where the mirror is; but what asks for a name gets an answer."""
    assert {name for _, name in socket.if_nameindex()} == {"lo", "tap0"}
    gateway = server(sandbox)
    for host, port in (("192.0.2.1", 80), (gateway, 5000), ("127.0.0.1", 5000)):
        with pytest.raises(OSError, match=r"refused|unreachable|timed out|reset"):
            socket.create_connection((host, port), timeout=3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        question = b"\7example\3com\0\0\1\0\1"
        asking.sendto(b"bk\1\0\0\1\0\0\0\0\0\0" + question, (server(sandbox), 53))
        answer = asking.recv(512)
    assert answer[:2] == b"bk"
    assert answer[3] & 15 in (2, 3), "no such name, or no server to ask"


def server(sandbox: Sandbox) -> str:
    """The address in that network at which the machine below it answers."""
    return f"{NETWORK}.{1 if re.search('gvisor', sandbox.worker) else 3}"

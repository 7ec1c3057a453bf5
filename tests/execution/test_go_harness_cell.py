"""The surroundings of a cell on BuildKit's harness: the parts that a test of the suite looks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bare_cells import BareCells

from bkrules.cell.go_harness import hand_down_controllers

FINDS = """
import socket
from bkrules.sandbox import syscalls
def test_it(sandbox):
    syscalls.add_interface("bk0", "198.51.100.1", "255.255.255.0")
    assert "bk0" in [name for _, name in socket.if_nameindex()]
    with socket.create_server(("198.51.100.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            assert client.getsockname()[0] == "198.51.100.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        try:
            outside.connect(("203.0.113.1", 80))
        except OSError:
            return
    raise AssertionError("the interface is a way out")
"""


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no tap devices")
def test_the_interface_has_an_address_and_leads_nowhere(cells: BareCells) -> None:
    result = cells.run(FINDS)

    assert result["status"] == "passed", result


def test_controllers_are_handed_down_one_by_one(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.controllers").write_text("memory pids\n")
    os.mkfifo(group / "cgroup.subtree_control")
    reader = os.open(group / "cgroup.subtree_control", os.O_RDONLY | os.O_NONBLOCK)

    hand_down_controllers(group)

    written = os.read(reader, 100).decode().split("+")
    os.close(reader)
    assert written == ["", "memory", "pids"]

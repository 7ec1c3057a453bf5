"""A cell whose root is an ext4 in memory, for workers in a user namespace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bare_cells import BareCells
from spaces import wait_for

from bkrules.plugin import host

LIMITS = {"memory": 1 << 30, "pids": 1000, "disk": 64 << 20}
FACTS = """
import os
def test_it(sandbox):
    words = [line.split() for line in open("/proc/mounts") if line.split()[1] == "/"]
    assert [kind for _, _, kind, *_ in words] == [KIND], words
    assert os.statvfs("/").f_blocks * os.statvfs("/").f_frsize <= 64 << 20
    assert not os.path.exists("/lost+found")
    os.setxattr("/tmp", "user.overlay.opaque", b"y")
    for number in range(3, 100):
        if os.path.exists(f"/proc/self/fd/{number}"):
            assert os.readlink(f"/proc/self/fd/{number}") != "/", number
"""
FILLS = """
def test_it(sandbox):
    with open("/var/lib/bk/much", "wb") as file:
        for _ in range(128):
            file.write(bytes(1 << 20))
            file.flush()
"""
OPENS = """
import os, stat
def test_it(sandbox):
    number = os.stat("/").st_dev
    os.mknod("/tmp/node", stat.S_IFBLK | 0o600, number)
    try:
        os.open("/tmp/node", os.O_RDONLY)
    except PermissionError:
        return
    raise AssertionError("the cell opened the device of its root")
"""


@pytest.fixture
def maker() -> str:
    found = host.probe()
    if os.geteuid() != 0 or not found.mke2fs:
        pytest.skip("this machine mounts no ext4 in memory")
    return found.mke2fs


def backing_files() -> set[str]:
    """The files of all loop devices of this machine."""
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.add(path.read_text().strip())
        except OSError:  # freed meanwhile
            continue
    return found


@pytest.mark.parametrize("isolation", ["cell", "jail"])
def test_the_root_is_an_ext4_and_ends_with_the_cell(cells: BareCells, maker: str, isolation: str) -> None:
    own = f"/memfd:bk-{os.getpid()}-bare{id(cells)}-"

    result = cells.run(FACTS.replace("KIND", repr("ext4")), mke2fs=maker, limits=LIMITS, isolation=isolation)

    assert result["status"] == "passed", result
    wait_for(lambda: not [file for file in backing_files() if file.startswith(own)])


def test_without_the_wish_it_is_a_tmpfs(cells: BareCells) -> None:
    assert cells.run(FACTS.replace("KIND", repr("tmpfs")), limits=LIMITS)["status"] == "passed"


def test_its_size_is_the_limit(cells: BareCells, maker: str) -> None:
    result = cells.run(FILLS, mke2fs=maker, limits=LIMITS)

    assert (result["status"], result["class"]) == ("failed", "resources")
    assert "the cell's disk" in result["reason"]


def test_the_cell_cannot_open_the_device(cells: BareCells, maker: str) -> None:
    assert cells.run(OPENS, mke2fs=maker, limits=LIMITS)["status"] == "passed"


def test_a_machine_that_cannot_format_says_so(cells: BareCells) -> None:
    result = cells.run("def test_it(sandbox): pass\n", mke2fs="/nowhere/mke2fs", limits=LIMITS)

    assert (result["status"], result["class"]) == ("failed", "infrastructure")
    assert "/nowhere/mke2fs" in result["reason"]

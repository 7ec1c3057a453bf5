from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules.cell import coverage
from bkrules.cell.init import _is_closed
from bkrules.cell.programs import exhausted
from bkrules.plugin import DaemonError, Daemons, ProgramResult, RunningCell


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "bk-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_with_less_than_a_mebibyte_is_full(disk: Path, tmp_path: Path) -> None:
    (disk / "most").write_bytes(bytes(3 << 20))
    assert exhausted(tmp_path, str(disk), str(disk)) == ""

    (disk / "more").write_bytes(bytes(4096))

    assert exhausted(tmp_path, str(disk), str(disk)) == "the cell's disk of 4 MiB is full"


@pytest.mark.parametrize(
    ("log", "text", "found"),
    [
        ("buildkitd.log", "failed to write: No space left on device\n", "no space left on device"),
        ("test.log", "OSError: [Errno 24] Too many open files: '/x'\n", "too many open files"),
        ("buildkitd.log", "accept4: too many open files; retrying\n", "too many open files"),
        ("test.log", "OSError: [Errno 23] Too many open files in system\n", "too many open files in system"),
        ("test.log", "AssertionError: 1 == 2\n", ""),
        ("test.log", b"\xff\xfe No space left on device".decode("latin-1"), "no space left on device"),
        ("notes.txt", "No space left on device\n", ""),
    ],
)
def test_the_logs_tell_what_ran_out(disk: Path, tmp_path: Path, log: str, text: str, found: str) -> None:
    (tmp_path / "other.log").write_text("all is well\n")
    (tmp_path / log).write_bytes(text.encode("latin-1"))

    assert exhausted(tmp_path, str(disk), str(disk)) == found


def test_a_channel_is_closed_once_the_other_end_is() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        assert not _is_closed(near)
        far.send(b"a message that waits does not close it")
        assert not _is_closed(near)

        far.close()

        assert _is_closed(near)


class Late(Daemons):
    """Daemons of which SIGTERM does not end one."""

    def end(self, timeout: float = 20) -> list[str]:
        return ["buildkitd"]


@pytest.mark.parametrize(("status", "fails"), [("passed", True), ("failed", False), ("skipped", False)])
def test_a_daemon_that_keeps_its_coverage_fails_what_passed(status: str, fails: bool, tmp_path: Path) -> None:
    cell = RunningCell("t", "oci", "test", {}, 1, Late({"GOCOVERDIR": str(tmp_path)}), None)
    tmp_path.chmod(0o777)

    try:
        coverage.bk_cell_stopping(cell, ProgramResult(status))
    except DaemonError as error:
        assert fails
        assert str(error) == "without coverage, since SIGTERM did not end buildkitd"
    else:
        assert not fails
    assert tmp_path.stat().st_mode & 0o777 == 0o755

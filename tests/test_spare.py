"""The spare of a worker serves one cell, and none for which it may be too old."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from spaces import wait_for

from bkrules.build.open_context import Prepared
from bkrules.build.spare import Spares
from bkrules.sandbox.run_folder import sweep

KEEPER = """
import sys
from bkrules.build.spare import Spares
spares = Spares(sys.argv[1])
spares.take(()).close()
print(spares._spare.prepared.processes._zygote.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spares(tmp_path: Path) -> Iterator[Spares]:
    with closing(Spares(str(tmp_path))) as found:
        yield found


def waiting(folder: Path) -> list[str]:
    """The folders of runs, by name."""
    return [path.name for path in folder.glob("run/*")]


def command_of(process: str) -> bytes:
    """The command line of a process; empty when it has ended, which may happen at any moment."""
    try:
        return Path("/proc", process, "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def taken(spares: Spares, *files: str) -> str:
    """Take what a cell begins with, and end the cell at once. Return the name of its folder."""
    with closing(spares.take(files)) as found:
        return found.folder.path.name


def zygote(prepared: Prepared) -> int:
    """The process of a zygote that has begun."""
    process = prepared.processes._zygote
    assert process is not None
    return process.pid


def test_each_cell_gets_another_spare(tmp_path: Path, spares: Spares) -> None:
    taken(spares)
    [first] = waiting(tmp_path)
    assert taken(spares) == first
    [second] = waiting(tmp_path)
    assert second != first
    assert taken(spares) == second
    spares.close()
    assert not waiting(tmp_path)


def test_two_cells_at_once_share_nothing(spares: Spares) -> None:
    taken(spares)
    with closing(spares.take(())) as one, closing(spares.take(())) as two:
        assert one.folder.path != two.folder.path
        assert zygote(one) != zygote(two)
        one.processes.interrupt()
        assert not two.processes.interrupted
        assert not two.processes.fate()


def test_a_spare_is_for_files_that_it_knows_and_that_are_as_they_were(tmp_path: Path, spares: Spares) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.__file__)
    taken(spares)
    assert taken(spares, str(link)) not in (first := waiting(tmp_path)), "the spare began before the file was known"
    assert [taken(spares, str(link))] == first
    link.unlink()
    link.symlink_to(sys.executable)
    before = waiting(tmp_path)
    assert taken(spares, str(link)) not in before, "it may have the other bytes"
    [current] = waiting(tmp_path)
    assert current not in before, "it serves no other cell"
    link.unlink()
    assert taken(spares, str(link)) != current, "the file is gone"


def test_a_spare_that_has_lost_something_is_replaced(tmp_path: Path, spares: Spares) -> None:
    taken(spares)
    [first] = waiting(tmp_path)
    shutil.rmtree(tmp_path / "run")
    assert taken(spares) != first
    [second] = waiting(tmp_path)
    assert spares._spare is not None
    prepared = spares._spare.prepared
    os.kill(zygote(prepared), signal.SIGKILL)
    wait_for(lambda: bool(prepared.processes.fate()))
    assert taken(spares) != second


def test_a_spare_ends_with_a_killed_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", KEEPER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        zygote = keeper.stdout.readline().strip()
        wait_for(lambda: b"zygote" in command_of(zygote))
        keeper.kill()
    wait_for(lambda: not command_of(zygote))
    assert len(waiting(tmp_path)) == 1
    sweep(str(tmp_path))
    assert not waiting(tmp_path)


def test_a_machine_that_can_keep_no_spare_tells_the_cell(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    with closing(Spares(str(tmp_path))) as spares, pytest.raises(OSError, match="run"):
        spares.take(())

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bkrules.execution.run_folder import RunFolder, sweep


def test_a_run_removes_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    assert folder.root.is_dir()
    (folder.new("scratch") / "file").write_text("x")

    folder.close()

    assert list((tmp_path / "run").iterdir()) == []


def test_sweep_leaves_a_live_run_alone(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))

    assert sweep(str(tmp_path), "") == []

    assert folder.root.is_dir()
    folder.close()


def test_sweep_removes_what_nobody_holds(tmp_path: Path) -> None:
    dead = tmp_path / "run/1234"
    (dead / "registry-0").mkdir(parents=True)
    (dead / "lock").write_text("")
    young = tmp_path / "run/5678"  # made, and not locked yet
    young.mkdir()

    assert sweep(str(tmp_path), "") == [str(dead)]

    assert young.is_dir()


def test_sweep_waits_for_no_lock(tmp_path: Path) -> None:
    held = tmp_path / "run/1234"
    held.mkdir(parents=True)
    with (held / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert sweep(str(tmp_path), "") == []


@pytest.mark.parametrize(
    ("name", "events", "goes"), [("bk-99999999-0", 0, True), ("bk-99999999-1", 1, False), ("other", 0, False)]
)
def test_sweep_removes_empty_cgroups_of_dead_runs_only(tmp_path: Path, name: str, events: int, goes: bool) -> None:
    """Ordinary folders stand in for cgroups here; the files in them are the kernel's, so only an empty one can go."""
    group = tmp_path / "cgroup" / name
    group.mkdir(parents=True)
    (group / "cgroup.events").write_text(f"populated {events}\n")

    removed = []
    try:
        removed = sweep(str(tmp_path), str(tmp_path / "cgroup"))
    except OSError:  # the folder could not be removed, which it would only try if it goes
        removed = [str(group)]

    assert (str(group) in removed) == goes


def test_sweep_spares_the_cgroups_of_a_run_that_lives(tmp_path: Path) -> None:
    group = tmp_path / f"cgroup/bk-{os.getpid()}-0"
    group.mkdir(parents=True)
    (group / "cgroup.events").write_text("populated 0\n")

    assert sweep(str(tmp_path), str(tmp_path / "cgroup")) == []


def test_runs_that_begin_together_do_not_sweep_each_other(tmp_path: Path) -> None:
    """Each of many processes sweeps and then makes its folder, which must still be whole when it ends."""
    code = (
        "import sys\n"
        "from bkrules.execution.run_folder import RunFolder, sweep\n"
        "for _ in range(30):\n"
        "    sweep(sys.argv[1], '')\n"
        "    folder = RunFolder(sys.argv[1])\n"
        "    sweep(sys.argv[1], '')\n"
        "    assert folder.root.is_dir()\n"
        "    folder.close()\n"
    )
    runs = [subprocess.Popen([sys.executable, "-I", "-c", code, tmp_path]) for _ in range(6)]

    assert [run.wait() for run in runs] == [0] * 6
    assert list((tmp_path / "run").iterdir()) == []

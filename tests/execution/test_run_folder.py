from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spaces import cgroup_name

from bkrules.plugin.host import probe
from bkrules.sandbox import cgroups
from bkrules.sandbox.run_folder import RunFolder, sweep, sweep_orphans

# A run with one cell, which has made its group and put a process in it; kill -9 then ends the run.
KILLED = """
import os, signal, subprocess, sys
from bkrules.sandbox.run_folder import RunFolder
cache, group = sys.argv[1:]
folder = RunFolder(cache)
with folder.owned(folder.new_name(), [group, group + "-never-made"]):
    os.makedirs(f"{group}/init")
    left = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    with open(f"{group}/init/cgroup.procs", "w") as procs:
        procs.write(str(left.pid))
    print(folder.path, left.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

# Sweeps and makes its folder, again and again; each folder must be whole when its run ends.
BUSY = """
import sys
from bkrules.sandbox.run_folder import RunFolder, sweep
for _ in range(50):
    sweep(sys.argv[1])
    folder = RunFolder(sys.argv[1])
    with folder.owned("cell", []):
        sweep(sys.argv[1])
        assert folder.root.is_dir()
    folder.close()
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(str(tmp_path))
    yield folder
    folder.close()


@pytest.fixture
def dead(tmp_path: Path) -> Callable[..., Path]:
    """Makes what a run that was killed left: its folder, and in the ledger the text of each entry."""

    def make(name: str, **entries: str) -> Path:
        folder = tmp_path / "run" / name
        (folder / "ledger").mkdir(parents=True)
        (folder / "scratch").mkdir()
        for entry, text in entries.items():
            (folder / "ledger" / entry.replace("_", ".")).write_text(text)
        return folder

    return make


@pytest.fixture
def group() -> Iterator[str]:
    """The place of a cgroup."""
    host = probe()
    if lacks := host.lacks():
        pytest.skip("; ".join(map(str, lacks)))
    path = f"{host.cgroup}/{cgroup_name()}"
    yield path
    cgroups.remove(path)


def ledger(run: RunFolder) -> list[str]:
    return sorted(path.name for path in (run.path / "ledger").iterdir())


def test_a_run_removes_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    assert folder.root.is_dir()
    (folder.new("scratch") / "file").write_text("x")

    folder.close()

    assert list((tmp_path / "run").iterdir()) == []


def test_no_two_cells_have_the_same_name(tmp_path: Path, run: RunFolder) -> None:
    other = RunFolder(str(tmp_path))
    names = [folder.new_name() for folder in (run, other) for _ in range(10)]
    other.close()

    assert len(set(names)) == 20
    assert all(name.startswith(f"bk-{os.getpid()}-") for name in names)


def test_the_ledger_has_a_cell_as_long_as_it_lives(run: RunFolder) -> None:
    with run.owned("one", ["/a"]):
        with pytest.raises(ZeroDivisionError), run.owned("other", ["/b"]):
            assert ledger(run) == ["one", "other"]
            raise ZeroDivisionError
        assert ledger(run) == ["one"]

    assert ledger(run) == []


def test_sweep_leaves_a_live_run_alone(tmp_path: Path, run: RunFolder) -> None:
    owned = tmp_path / "group"
    owned.mkdir()
    with run.owned("cell", [str(owned)]):
        assert sweep(str(tmp_path)) == []

        assert run.root.is_dir()
        assert ledger(run) == ["cell"]
    assert owned.is_dir()


def test_sweep_of_a_cache_without_runs_makes_nothing(tmp_path: Path) -> None:
    assert sweep(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_what_a_killed_run_left(tmp_path: Path, group: str) -> None:
    command = [sys.executable, "-I", "-c", KILLED, str(tmp_path), group]
    folder, pid = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    assert cgroups.processes(group) == [int(pid)]
    assert Path(folder, "root").is_dir()

    assert sweep(str(tmp_path)) == [group, folder]

    assert not os.path.exists(group)
    assert not os.path.exists(folder)
    assert sweep(str(tmp_path)) == []


def test_a_cgroup_is_removed_when_its_ledger_is_gone(tmp_path: Path, group: str) -> None:
    """Only an empty one, of a run whose process has ended, as its name says."""
    above = Path(group).parent
    no_pid = 1 << 22  # the kernel gives smaller ones
    run = secrets.token_hex(3)
    orphan, stranger = above / f"bk-{no_pid}-{run}-0", above / f"bk-{no_pid}-not-{run}-0"
    living, busy = above / f"bk-{os.getpid()}-{run}-0", above / f"bk-{no_pid}-{run}-1"
    others = (stranger, living, busy)
    command = [sys.executable, "-I", "-c", KILLED, str(tmp_path), str(busy)]
    _, pid = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    shutil.rmtree(tmp_path / "run")
    for path in (orphan, stranger, living):
        (path / "init").mkdir(parents=True)
    try:
        sweep_orphans()  # or another bk reap, at the same time

        assert [path.exists() for path in (orphan, *others)] == [False, True, True, True]
        assert cgroups.processes(str(busy)) == [int(pid)]
    finally:
        for path in others:
            cgroups.remove(str(path))


def test_sweep_removes_what_the_ledger_says_and_nothing_else(tmp_path: Path, dead: Callable[..., Path]) -> None:
    """Ordinary folders stand in for cgroups."""
    for name in ("mine", "mine-too", "another"):
        (tmp_path / "groups" / name / "init").mkdir(parents=True)
    groups = f"{tmp_path}/groups"
    folder = dead("1-a", cell=f'{{"cgroups": ["{groups}/mine", "{groups}/gone", "{groups}/mine-too"]}}')

    assert sweep(str(tmp_path)) == [f"{groups}/mine", f"{groups}/mine-too", str(folder)]

    assert os.listdir(groups) == ["another"]


def test_an_entry_that_was_cut_short_is_none(tmp_path: Path, dead: Callable[..., Path]) -> None:
    folder = dead("1-a", cell_1234_tmp='{"cgro')

    assert sweep(str(tmp_path)) == [str(folder)]


def test_an_entry_that_a_crash_of_the_machine_left_empty_is_none(tmp_path: Path, dead: Callable[..., Path]) -> None:
    folder = dead("1-a", cell="")

    assert sweep(str(tmp_path)) == [str(folder)]


def test_a_run_that_ended_before_its_ledger_was_made_is_swept(tmp_path: Path) -> None:
    (tmp_path / "run/1-a").mkdir(parents=True)

    assert sweep(str(tmp_path)) == [f"{tmp_path}/run/1-a"]


def test_what_is_busy_stays_for_the_next_time_with_its_ledger(
    tmp_path: Path, dead: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_REMOVE_SECONDS", 0.05)
    busy = tmp_path / "group"
    busy.mkdir()
    (busy / "file").touch()  # an ordinary folder with a file cannot be removed, as a group with a process
    first = dead("1-a", cell=f'{{"cgroups": ["{busy}"]}}')
    second = dead("2-b")

    assert sweep(str(tmp_path)) == [str(second)]

    assert (first / "ledger/cell").exists()
    (busy / "file").unlink()
    assert sweep(str(tmp_path)) == [str(busy), str(first)]


def test_runs_that_begin_together_do_not_sweep_each_other(tmp_path: Path) -> None:
    """Each of many processes sweeps and then makes its folder, which must still be whole when it ends."""
    runs = [subprocess.Popen([sys.executable, "-I", "-c", BUSY, tmp_path]) for _ in range(6)]

    assert [run.wait() for run in runs] == [0] * 6
    assert list((tmp_path / "run").iterdir()) == []

"""Cgroups, with the kernel's own; ordinary folders stand in where this machine has a hierarchy of the other kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spaces import cgroup_name

from bkrules.plugin.host import probe
from bkrules.sandbox import cgroups
from bkrules.sandbox.cgroups import Cgroups

LIMITS = {"memory": 64 << 20, "pids": 12}
NO_SWAP = {"memory.memsw.limit_in_bytes": str(64 << 20), "memory.swap.max": "0"}  # of memory and swap; of swap
HOG = "held = bytearray(256 << 20); print('more than the limit')"
FORK_UNTIL_REFUSED = """
import os, time
count = 0
try:
    while os.fork():
        count += 1
        assert count < 100
    time.sleep(1000)
except BlockingIOError:
    print(count, flush=True)
input()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    host = probe()
    if lacks := [*map(str, host.lacks()), *(f"no limit of {name}" for name in host.unlimited())]:
        pytest.skip("; ".join(lacks))
    name = cgroup_name()
    made = Cgroups(f"{host.cgroup}/{name}", {one: f"{folder}/{name}" for one, folder in host.controllers.items()})
    yield made
    made.remove()


@pytest.fixture
def start(groups: Cgroups) -> Iterator[Start]:
    """Starts Python code in the groups, which have been made. It continues when it is sent a line."""
    started = []

    def start(code: str, folder: str = "init") -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-c", f"input()\n{code}"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        Path(groups.path, folder, "cgroup.procs").write_text(str(child.pid))
        groups.join(child.pid)
        return child

    yield start
    groups.remove()  # with what the children started, which holds their output open
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    """Groups of a machine where cgroup2 has every controller, in ordinary folders."""
    path = tmp_path / "own"
    path.mkdir()
    (path / "memory.swap.max").write_text("max")
    (tmp_path / "cgroup.subtree_control").touch()
    return Cgroups(str(path), {"memory": str(path), "pids": str(path)})


def test_a_process_is_in_every_group_and_ends_with_them(groups: Cgroups, start: Start) -> None:
    groups.create(LIMITS)
    os.mkdir(f"{groups.path}/step")
    first, second = start(""), start("", "step")

    assert sorted(groups.processes()) == sorted([first.pid, second.pid])
    for folder in groups.limited.values():
        if folder != groups.path:
            assert {str(first.pid), str(second.pid)} <= set(Path(folder, "cgroup.procs").read_text().split())

    groups.remove()

    assert [first.wait(), second.wait()] == [-signal.SIGKILL] * 2
    assert not any(os.path.exists(folder) for folder in groups.folders)


def test_what_takes_more_memory_than_the_limit_is_killed_and_counted(groups: Cgroups, start: Start) -> None:
    groups.create(LIMITS)
    child = start(HOG)

    assert groups.hits() == {"memory": 0, "pids": 0}
    assert child.communicate("\n", timeout=60)[0] == ""

    assert child.returncode == -signal.SIGKILL
    assert groups.hits() == {"memory": 1, "pids": 0}


def test_swap_is_no_way_around_the_limit(groups: Cgroups) -> None:
    groups.create(LIMITS)

    folder = Path(groups.limited["memory"])
    found = {name: (folder / name).read_text().strip() for name in NO_SWAP if (folder / name).exists()}
    assert found.items() <= NO_SWAP.items()


def test_a_fork_beyond_the_limit_is_refused_and_counted(groups: Cgroups, start: Start) -> None:
    groups.create(LIMITS)
    child = start(FORK_UNTIL_REFUSED)
    assert child.stdin is not None
    assert child.stdout is not None

    print(file=child.stdin, flush=True)

    assert int(child.stdout.readline()) == LIMITS["pids"] - 1
    assert len(groups.processes()) == LIMITS["pids"]
    assert groups.hits() == {"memory": 0, "pids": 1}


def test_groups_that_are_gone_have_no_processes_and_no_hits(groups: Cgroups) -> None:
    groups.create(LIMITS)
    groups.remove()

    groups.remove()

    assert groups.processes() == []
    assert groups.hits() == {}


def test_a_name_that_is_taken_is_an_error(groups: Cgroups) -> None:
    groups.create(LIMITS)

    with pytest.raises(FileExistsError):
        groups.create(LIMITS)


def test_cgroup2_has_the_limits_beside_the_processes(unified: Cgroups) -> None:
    unified.create(LIMITS)

    path = Path(unified.path)
    assert unified.folders == [str(path)]
    assert (path / "init").is_dir()
    written = {name: (path / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")}
    assert written == {"memory.max": str(64 << 20), "memory.swap.max": "0", "pids.max": "12"}


@pytest.mark.parametrize(("before", "after"), [("cpu pids", "+memory"), ("cpu memory", "cpu memory")])
def test_a_controller_is_handed_down_unless_it_is_already(unified: Cgroups, before: str, after: str) -> None:
    control = Path(unified.path).with_name("cgroup.subtree_control")
    control.write_text(before)

    Cgroups(unified.path, {"memory": unified.path}).create(LIMITS)

    assert control.read_text() == after


def test_in_cgroup2_there_is_nothing_more_to_join(unified: Cgroups) -> None:
    unified.create(LIMITS)

    unified.join(os.getpid())

    assert not (Path(unified.path) / "cgroup.procs").exists()


def test_hits_are_counted_by_their_own_word(unified: Cgroups) -> None:
    unified.create(LIMITS)
    events = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"
    Path(unified.path, "memory.events").write_text(events)
    Path(unified.path, "pids.events").write_text("max 7\n")

    assert unified.hits() == {"memory": 5, "pids": 7}


def test_hits_of_a_hierarchy_of_its_own_are_counted_by_their_own_word(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 1\nunder_oom 2\noom_kill 3\n")
    (tmp_path / "pids.events").write_text("max 4\n")
    groups = Cgroups(f"{tmp_path}/unified", {"memory": str(tmp_path), "pids": str(tmp_path)})

    assert groups.hits() == {"memory": 3, "pids": 4}


def test_what_stays_busy_is_an_error_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_REMOVE_SECONDS", 0.05)
    (tmp_path / "own/busy").mkdir(parents=True)
    (tmp_path / "own/busy/file").touch()  # an ordinary folder with a file cannot be removed, as a group with a process

    with pytest.raises(OSError, match="busy"):
        cgroups.remove(str(tmp_path / "own"))

    assert (tmp_path / "own/busy").is_dir()

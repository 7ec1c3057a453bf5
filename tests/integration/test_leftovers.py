"""The fixture `leftovers` sees what a run of a test leaves, and nothing of anybody else's."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leftovers import Leftovers
from spaces import wait_for

CGROUP2 = next(
    Path(words[4])
    for line in Path("/proc/self/mountinfo").read_text().splitlines()
    if "cgroup2" in (words := line.split())
)


@contextmanager
def cgroup(run: str) -> Iterator[str]:
    """A cgroup with the name of a cell of that run."""
    folder = CGROUP2 / f"bk-{run}-0"
    folder.mkdir()
    yield f"{folder}"
    folder.rmdir()


def test_an_orphan_is_seen_until_it_ends(tmp_path: Path, leftovers: Leftovers) -> None:
    before = leftovers(tmp_path)
    done = subprocess.run(
        ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    try:
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")  # not yet a copy of the shell
        assert leftovers(tmp_path)["processes"] == [*before["processes"], f"{pid} sleep 1000 "]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert leftovers(tmp_path) == before


def test_cgroups_of_this_test_are_seen(tmp_path: Path, leftovers: Leftovers) -> None:
    """Of a process that it has started, and of a run folder in its disk cache."""
    run = f"{os.getpid()}-{secrets.token_hex(3)}"
    with subprocess.Popen(["true"]) as process, cgroup(f"{process.pid}-00") as started, cgroup(run) as kept:
        assert leftovers(tmp_path)["cgroups"] == [started]
        (tmp_path / "run" / run).mkdir(parents=True)
        assert sorted(leftovers(tmp_path)["cgroups"]) == sorted([started, kept])


def test_names_below_the_folders_of_this_test_are_seen(tmp_path: Path, leftovers: Leftovers) -> None:
    before = leftovers(tmp_path / "cache")
    (tmp_path / "cache/run/1-abc").mkdir(parents=True)
    subprocess.run(["mktemp"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "cache"], check=True)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{tmp_path}/cache/s")
            after = leftovers(tmp_path / "cache")
    finally:
        subprocess.run(["umount", tmp_path / "cache"], check=True)
    (mount,) = after["mounts"]
    assert f" {tmp_path}/cache " in mount
    assert after["sockets"] == [f"{tmp_path}/cache/s"]
    assert len(after["temporary files"]) == 1
    assert after["run folders"] == []  # which the mount hides
    assert leftovers(tmp_path / "cache")["run folders"] == ["1-abc"]
    assert before == {**before, "mounts": [], "sockets": [], "temporary files": [], "run folders": []}


def test_a_network_namespace_is_that_of_an_own_process(tmp_path: Path, leftovers: Leftovers) -> None:
    with subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)
        assert leftovers(tmp_path)["network namespaces"] == [os.readlink(f"/proc/{process.pid}/ns/net")]
        process.stdin.close()
    assert leftovers(tmp_path)["network namespaces"] == []

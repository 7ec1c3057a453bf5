"""Leaks of a cell, in the kernel's own objects: each is made, found, and removed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from spaces import cgroup_name

from bkrules.cell import leaks
from bkrules.cell.leaks import LeakCheck, fuse_connections
from bkrules.plugin.host import probe
from bkrules.sandbox import cgroups

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork")

# A FUSE file system that nobody serves: mounted, then unmounted but held open, then gone. A line from here to there for each step.
FUSE = """
import os, subprocess, sys
from bkrules.sandbox import syscalls
device = os.open("/dev/fuse", os.O_RDWR)
syscalls.mount("none", sys.argv[1], "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
held = os.open(sys.argv[1], os.O_PATH)
print("mounted", flush=True)
input()
subprocess.run(["umount", "--lazy", sys.argv[1]], check=True)
print("held", flush=True)
input()
"""


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[LeakCheck]:
    """The leak check of a cell that has made nothing yet."""
    host = probe()
    if lacks := host.lacks():
        pytest.skip("; ".join(map(str, lacks)))
    (tmp_path / "root").mkdir()
    (tmp_path / "out").mkdir()
    made = LeakCheck(f"{host.cgroup}/{cgroup_name()}", str(tmp_path / "root"))
    os.mkdir(made.cgroup)
    yield made
    cgroups.remove(made.cgroup)


@contextmanager
def running(*command: str) -> Iterator[int]:
    """The id of a process that lives as long as the context."""
    with subprocess.Popen(command) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", kind, "bk-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def first_process() -> Iterator[int]:
    """PID 1 of new namespaces, as a cell's first process is. It has ended when the context has."""
    command = ["unshare", *NAMESPACES, "--kill-child", "sh", "-c", "echo; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"  # it runs
            pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            yield pid
            os.kill(pid, signal.SIGKILL)  # unshare waits for it, and ends
            process.wait()
        finally:
            process.kill()


def attached(device: str, image: Path) -> bool:
    """Return whether a loop device has that file; one that was freed may have another test's at once."""
    try:
        return Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file").read_text() == f"{image}\n"
    except OSError:
        return False


def test_a_cell_that_left_nothing(cell: LeakCheck) -> None:
    with first_process() as pid:
        cell.see(pid)

    assert cell.leaks() == []


def test_a_process_in_the_cells_group(cell: LeakCheck) -> None:
    with running("sleep", "1000") as pid:
        Path(cell.cgroup, "cgroup.procs").write_text(str(pid))

        assert cell.leaks() == [f"process {pid} (sleep 1000)"]

    assert cell.leaks() == []


@pytest.mark.parametrize("name", ["ipc", "mnt", "net", "pid", "uts"])
def test_a_namespace_that_a_mount_keeps(cell: LeakCheck, tmp_path: Path, name: str) -> None:
    other, kept = tmp_path / "other", tmp_path / "kept"
    other.touch()
    kept.touch()
    with first_process() as first, kept_by(other, first, name), first_process() as pid, kept_by(kept, pid, name):
        cell.see(pid)
        inner = os.readlink(f"/proc/{pid}/ns/{name}")

        assert cell.leaks() == [f"namespace {inner}, mounted on {kept}"]

    assert cell.leaks() == []


@contextmanager
def kept_by(path: Path, pid: int, name: str) -> Iterator[None]:
    subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/{name}", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("place", ["root", "root/deep/er"])
def test_a_mount_that_the_host_sees(cell: LeakCheck, tmp_path: Path, place: str) -> None:
    with mounted("tmpfs", tmp_path / place) as point, mounted("tmpfs", tmp_path / "root-of-another"):
        assert cell.leaks() == [f"mount {point}"]

    assert cell.leaks() == []


def test_a_loop_device_on_the_cells_disk_is_named_and_detached(cell: LeakCheck, tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "disk") as disk, mounted("tmpfs", tmp_path / "other") as other:
        images, devices = (disk / "image", other / "image"), []
        try:
            for image in images:
                image.touch()
                os.truncate(image, 1 << 20)
                command = ["losetup", "--find", "--show", str(image)]
                devices.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
            assert cell.leaks() == []
            cell.device = os.stat(disk).st_dev

            assert cell.leaks() == [f"loop device {devices[0]}"]

            assert list(map(attached, devices, images)) == [False, True]
            assert cell.leaks() == []
        finally:
            for device, image in zip(devices, images, strict=False):
                if attached(device, image):
                    subprocess.run(["losetup", "--detach", device], check=True)


def test_a_fuse_connection_that_outlives_its_mount(
    cell: LeakCheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not probe().fuse:
        pytest.skip("no /dev/fuse")
    (tmp_path / "fuse").mkdir()
    command = ["unshare", "--mount", sys.executable, "-I", "-c", FUSE, str(tmp_path / "fuse")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "mounted\n"
            with mounted("fusectl", tmp_path / "connections") as connections:
                monkeypatch.setattr(leaks, "FUSE_CONNECTIONS", str(connections))
                cell.fuse = fuse_connections([process.pid, process.pid, 1 << 30])
                (number,) = cell.fuse
                assert str(number) in os.listdir(connections)
                assert cell.leaks() == []  # the number may have been given to a cell that lives

                print(file=process.stdin, flush=True)
                assert process.stdout.readline() == "held\n"
                assert fuse_connections([process.pid]) == []
                assert cell.leaks() == [f"FUSE connection {number}"]

                process.communicate("\n")
                assert cell.leaks() == []
        finally:
            process.kill()


def test_what_is_no_file_among_the_results(cell: LeakCheck) -> None:
    cell.strange = ["/out/deep/fifo"]

    assert cell.leaks() == ["file /out/deep/fifo"]


def test_a_change_of_the_subordinate_ids(cell: LeakCheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, made, kept = (str(tmp_path / name) for name in ("subuid", "subgid", "kept"))
    Path(changed).write_text("a:1:1\n")
    Path(kept).write_text("a:1:1\n")
    monkeypatch.setattr(leaks, "SUBORDINATE", (changed, made, kept))
    cell = LeakCheck(cell.cgroup, cell.root)

    assert cell.leaks() == []
    Path(changed).write_text("a:1:1\nb:2:2\n")
    Path(made).touch()

    assert cell.leaks() == [f"change of {made}", f"change of {changed}"]


def test_all_that_is_left_is_named(cell: LeakCheck) -> None:
    cell.strange = ["/out/fifo"]
    with mounted("tmpfs", Path(cell.root, "tmp")) as point:
        assert cell.leaks() == ["file /out/fifo", f"mount {point}"]

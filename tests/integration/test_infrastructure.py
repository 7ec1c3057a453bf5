"""Faults below the test: each has a class, a bounded time and an exit code, and none becomes a silent pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import ATTEMPT, WORKERS, Space, matrix, out_folders, wait_for

Report = Callable[[Path, str], dict[str, Any]]

KILL = """
import os, signal, time
from pathlib import Path

def kill(name, number=signal.SIGKILL):
    for folder in Path("/proc").glob("[0-9]*"):
        if (folder / "comm").read_text().strip() == name[:15]:
            os.kill(int(folder.name), number)

def build(sandbox, folder, step):
    (folder / "Dockerfile").write_text(f"FROM docker.io/library/bulk:esgz\\nRUN {step}\\n")
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local])
"""
HANG = """package main

import "time"

func main() { time.Sleep(time.Hour) }
"""


def cells(space: Space, report: Report, code: int, *options: str) -> list[dict[str, Any]]:
    done = space.bk("build", *options, "//targets:small")
    assert done.returncode == code, done.stdout + done.stderr
    found: list[dict[str, Any]] = report(space.root, "small")["cells"]
    return found


@pytest.mark.parametrize(
    ("worker", "daemon"),
    [
        ("oci", "buildkitd"),
        ("containerd", "containerd"),
        ("containerd_stargz", "containerd-stargz-grpc"),
        ("rootless", "buildkitd"),
    ],
)
def test_a_daemon_that_dies_during_a_build(tools: Space, report: Report, worker: str, daemon: str) -> None:
    test = f"""
import threading
def test_dies(sandbox, tmp_path):
    threading.Timer(1, kill, ["{daemon}"]).start()
    build(sandbox, tmp_path, "sleep 3; shasum /data/*")
"""
    matrix(tools, KILL + test, worker, more="timeout = 20,")

    (cell,) = cells(tools, report, 3)

    assert (cell["status"], cell["class"], len(cell["attempts"])) == ("failed", "infrastructure", 2)
    assert "ended during the test: " in cell["reason"]
    folder = tools.root / Path(cell["log"]).parent
    assert (folder / "attempt_1/test.log").read_text()
    assert (folder / "attempt_1/buildkitd.log").read_text()


def test_a_daemon_that_dies_when_all_is_done(tools: Space, report: Report) -> None:
    """The test has passed, but what it passed on was broken."""
    matrix(tools, KILL + "def test_it(sandbox):\n    kill('buildkitd')\n    time.sleep(0.3)\n", "oci")

    (cell,) = cells(tools, report, 3)

    assert (cell["status"], cell["class"]) == ("failed", "infrastructure")
    assert cell["reason"] == "buildkitd ended during the test: killed by SIGKILL"


def test_a_daemon_that_hangs_during_the_test(tools: Space, report: Report) -> None:
    test = (
        "def test_it(sandbox, tmp_path):\n    kill('buildkitd', signal.SIGSTOP)\n    build(sandbox, tmp_path, 'echo')\n"
    )
    matrix(tools, KILL + test, "oci", "rootless", more="timeout = 3,")

    found = cells(tools, report, 3)

    assert {(cell["status"], cell["class"], len(cell["attempts"])) for cell in found} == {("timed out", "timeout", 1)}
    assert found[0]["reason"] == "it took more than 3 s; buildkitd is stopped"


def test_a_daemon_that_never_says_ready(tools: Space, report: Report) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "hanging", more="timeout = 2,")
    tools.write("t/hang/main.go", HANG)
    tools.write("t/hang/go.mod", "module hang\n\ngo 1.26\n")
    tools.write("t/hang/go.sum", "")
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text() + 'worker(name = "hanging", plugin = "oci", tools = {"buildkitd": "//t:hang"})\n'
    )
    tools.write(
        "t/BUILD.py",
        'from bkrules import go_binary\ngo_binary(name = "hang", srcs = ["hang/main.go"], mod = "hang/go.mod")\n',
    )

    (cell,) = cells(tools, report, 3)

    assert (cell["class"], cell["reason"]) == ("infrastructure", "buildkitd was not ready within 2 s")


def test_what_passes_at_the_second_attempt_is_flaky(tools: Space, report: Report) -> None:
    test = """
def test_it(sandbox):
    if attempt() == 1:
        kill("buildkitd")
        time.sleep(0.3)
"""
    matrix(tools, KILL + ATTEMPT + test, "oci")

    for _ in range(2):
        (cell,) = cells(tools, report, 0)
        assert (cell["status"], cell["cached"], len(cell["attempts"])) == ("flaky", False, 2)
        assert cell["reason"].startswith("passed at attempt 2, after: buildkitd ended during the test")


def test_the_registry_goes_away(tools: Space, report: Report, leftovers: Leftovers) -> None:
    """Its cells fail as infrastructure and are run again, on a registry that is started again."""
    test = """
def test_it(sandbox, tmp_path):
    Path("/out/begun.log").write_text("yes")
    while not Path("/out/go").exists():
        time.sleep(0.02)
    build(sandbox, tmp_path, "shasum /data/*")
"""
    matrix(tools, KILL + test, "oci_stargz", "containerd_stargz", more="timeout = 60,")
    before = leftovers(tools.cache)
    run = subprocess.Popen(
        tools.command("build", "-j", "2", "//targets:small"), cwd=tools.root, stdout=subprocess.PIPE, text=True
    )
    out = tools.root / "bk-out/targets/small/test_it"
    wait_for(lambda: len(list(out.glob("*/begun.log"))) == 2)

    (registry,) = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"\0serve\0config.yml" in _read(folder / "cmdline") and str(tools.cache) in _link(folder / "cwd")
    ]
    os.kill(registry, signal.SIGKILL)
    for folder in out_folders(run.pid):
        (folder / "go").touch()
    wait_for(lambda: len(list(out.glob("*/begun.log"))) == 2 and len(list(out.glob("*/attempt_1"))) == 2)
    for folder in out_folders(run.pid):
        (folder / "go").touch()

    said = run.communicate(timeout=120)[0]
    assert run.returncode == 0, said
    found = report(tools.root, "small")["cells"]
    assert {(cell["status"], len(cell["attempts"])) for cell in found} == {("flaky", 2)}
    assert all("after: the mirror's registry ended" in cell["reason"] for cell in found)
    assert leftovers(tools.cache) == before


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_the_zygote_is_killed(tools: Space, report: Report) -> None:
    test = "def test_it(sandbox):\n    while not Path('/out/go').exists():\n        time.sleep(0.02)\n"
    matrix(tools, KILL + test, "oci", "rootless", more="timeout = 60,")
    run = subprocess.Popen(
        tools.command("build", "-j", "1", "//targets:small"), cwd=tools.root, stdout=subprocess.PIPE, text=True
    )
    out = tools.root / "bk-out/targets/small/test_it"
    wait_for(lambda: (out / "worker=oci/buildkitd.log").exists())

    (zygote,) = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"bkrules.cell.zygote" in _read(folder / "cmdline") and _parent(folder) == run.pid
    ]
    os.kill(zygote, signal.SIGKILL)
    first = out_folders(run.pid)
    (first[0] / "go").touch()
    wait_for(lambda: (out / "worker=rootless/buildkitd.log").exists())
    wait_for(lambda: out_folders(run.pid) not in ([], first))
    (out_folders(run.pid)[0] / "go").touch()

    said = run.communicate(timeout=60)[0]
    assert run.returncode == 0, said
    assert {cell["status"] for cell in report(tools.root, "small")["cells"]} == {"passed"}


def _parent(folder: Path) -> int:
    return int((_read(folder / "stat").rpartition(b")")[2].split() or [b"", b"0"])[1])


@pytest.mark.alone
def test_inotify_is_exhausted(tools: Space, report: Report) -> None:
    """The user's instances are used up, as by an editor gone wild: neither bk nor a daemon in a cell needs one."""
    matrix(tools, KILL + "def test_it(sandbox, tmp_path): build(sandbox, tmp_path, 'echo')\n", *WORKERS)
    hog = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nwhile libc.inotify_init1(0) >= 0: pass\n"
        "print('full', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        done = tools.bk("build", "//targets:small")
        process.communicate()

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("fault", ["read-only", "full", "a file"])
def test_a_cache_that_cannot_be_written(tools: Space, tmp_path: Path, fault: str) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    place = tmp_path / "place"
    if fault == "a file":
        place.write_text("")
        prefix: tuple[str, ...] = ()
    else:
        place.mkdir()
        options = {"read-only": "ro,size=1m", "full": "size=16k,nr_inodes=8"}[fault]
        prefix = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {options} none {place} && exec "$@"', "sh")

    command = [*prefix, *tools.command("build", "//targets:small")[:-1], str(place)]
    done = subprocess.run(command, cwd=tools.root, capture_output=True, text=True, check=False)

    words = {"read-only": "Read-only file system", "full": "no free inodes", "a file": "Not a directory"}[fault]
    assert done.returncode == 36, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "--disk_cache" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_too_few_open_files_for_bk(tools: Space) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")

    done = tools.bk("build", "//targets:small", prefix=("prlimit", "--nofile=12"))

    assert done.returncode == 36, done.stdout + done.stderr
    assert "Too many open files" in done.stdout + done.stderr
    assert "ulimit -n" in done.stdout + done.stderr


def test_the_clock_does_not_matter(tools: Space, report: Report) -> None:
    """The time of day jumps about while bk runs; what it waits for, it measures on a clock that does not."""
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    jumpy = (
        "import itertools, sys, time\nfrom bkrules.cli import main\n"
        "jumps = itertools.cycle([-10**6, 0, 10**6])\nwall, nanos = time.time, time.time_ns\n"
        "time.time = lambda: wall() + next(jumps)\ntime.time_ns = lambda: nanos() + next(jumps) * 10**9\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = tools.command("build", "//targets:small")[4:]
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-I", "-c", jumpy, *arguments], cwd=tools.root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert report(tools.root, "small")["cells"][0]["seconds"] <= time.monotonic() - began

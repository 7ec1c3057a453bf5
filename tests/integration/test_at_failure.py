"""`bk shell --at_failure`: the sandbox of a test that has failed, as the test left it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest
from leftovers import Leftovers
from spaces import Space, matrix, wait_for

TESTS = """
import shutil, time
import pytest

def test_passes(sandbox):
    assert shutil.which("ls") is None or shutil.which("strace"), "a command of the machine"

@pytest.fixture
def left(tmp_path):
    yield tmp_path / "left"
    (tmp_path / "left").unlink()

def test_fails(sandbox, tmp_path, left, http_server):
    assert shutil.which("ls") is None, "a command of the machine"
    http_server.files["/served"] = b"by the server of the test"
    (tmp_path / "address").write_text(http_server.address.replace(":", "/"))
    left.write_text("by the test")
    sandbox.run("debug workers")
    assert 1 + 1 == 3

def test_hangs():
    time.sleep(600)

def test_skips():
    pytest.skip("for a reason")
"""


def shell(space: Space, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*space.command("shell"), "--disk_cache", str(space.cache), "--at_failure", *words]
    return subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=False)


def test_a_failure_keeps_daemons_and_files_and_leaves_nothing(tools: Space, leftovers: Leftovers) -> None:
    matrix(tools, TESTS, "oci", "containerd", "rootless", more="timeout = 10,")
    before = leftovers(tools.cache)
    look = "cat /tmp/pytest/*/left; buildctl debug workers; cat /out/test.log; ls /usr/bin/env;"
    look += "exec 3<> /dev/tcp/$(cat /tmp/pytest/*/address) && printf 'GET /served HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3; exit 4"

    for worker in ("oci", "containerd", "rootless"):
        done = shell(tools, f"test_fails/worker={worker}", "--", "bash", "-c", look)
        assert done.returncode == 4, done.stderr
        assert f"bk: test_fails/worker={worker} failed: t/test_small.py::test_fails: assert (1 + 1) == 3" in done.stderr
        assert "bk: this is its sandbox: its daemons and fixtures still run; its logs are in /out" in done.stderr
        words = ("by the test", "by the server", "PLATFORMS", "E       assert (1 + 1) == 3", "/usr/bin/env")
        for found in words:
            assert found in done.stdout, done.stdout + done.stderr

    hung = shell(tools, "test_hangs/worker=oci", "--", "sh", "-c", "cat /out/test.log; buildctl debug workers")
    assert hung.returncode == 0, hung.stderr
    assert ">       time.sleep(600)" in hung.stdout, "its log tells where it was"
    assert "failed: it took more than 10 s" in hung.stderr
    assert "PLATFORMS" in hung.stdout
    assert leftovers(tools.cache) == before


def test_without_a_failure_there_is_no_shell(tools: Space) -> None:
    matrix(tools, TESTS, "oci")
    passed = shell(tools, "test_passes/worker=oci", "--", "touch", "/tmp/shell")
    assert (passed.returncode, passed.stdout) == (0, "")
    assert passed.stderr.endswith("bk: test_passes/worker=oci passed, so there is no failure to look at\n")

    skipped = shell(tools, "test_skips/worker=oci", "--", "true")
    assert skipped.returncode == 4
    assert "test_skips/worker=oci was skipped: for a reason" in skipped.stderr

    alone = shell(tools, "test_fails/worker=oci", "--at_failure_timeout=0", "--", "true")
    assert (alone.returncode, "must be a positive number, but was '0'" in alone.stderr) == (2, True)
    words = [*tools.command("shell"), "--at_failure_timeout=5", "test_fails/worker=oci"]
    lost = subprocess.run(words, cwd=tools.root, capture_output=True, text=True, check=False)
    assert (lost.returncode, "--at_failure_timeout is for --at_failure" in lost.stderr) == (2, True)


def test_the_end_of_its_time(tools: Space, leftovers: Leftovers) -> None:
    """A command in the background, which no signal of a terminal reaches, ends too."""
    matrix(tools, TESTS, "containerd_stargz", more="isolation = 'jail',")
    before = leftovers(tools.cache)
    cell = "test_fails/worker=containerd+stargz"
    done = shell(tools, cell, "--at_failure_timeout=1", "--", "sh", "-c", "setsid sleep 600 & exec sleep 600")
    assert done.returncode == 124, done.stderr
    assert done.stderr.endswith("bk: the time is over: 1 s\n")
    assert leftovers(tools.cache) == before

    started = [*tools.command("shell"), "--disk_cache", str(tools.cache), "--at_failure", cell, "--", "sleep", "600"]
    with subprocess.Popen(started, cwd=tools.root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("or after 600 s" in line for line in process.stderr)
        process.kill()
    tools.bk("reap")
    wait_for(lambda: leftovers(tools.cache) == before, 10)


def test_a_terminal_is_ended_too(tools: Space) -> None:
    matrix(tools, TESTS, "oci")
    near, far = os.openpty()
    words = ["--disk_cache", str(tools.cache), "--at_failure", "--at_failure_timeout=2", "test_fails/worker=oci"]
    command = [*tools.command("shell"), *words]
    with subprocess.Popen(
        command, cwd=tools.root, stdin=far, stdout=far, stderr=far, start_new_session=True
    ) as process:
        os.close(far)
        assert process.wait(timeout=60) == 124
    said = b""
    with pytest.raises(OSError, match="Input/output error"):
        while True:
            said += os.read(near, 1024)
    os.close(near)
    assert b"/src # " in said
    assert b"the time is over: 2 s" in said


def test_a_daemon_that_does_not_boot(tools: Space) -> None:
    matrix(tools, TESTS, "bad")
    build = tools.root / "targets/BUILD.py"
    bad = 'worker(name = "bad", plugin = "oci", id = "bad", tools = {"buildkitd": "//:buildctl"})\n'
    build.write_text(build.read_text() + bad)
    done = shell(tools, "test_passes/worker=bad", "--", "cat", "/out/buildkitd.log")
    assert done.returncode == 0
    assert "failed: buildkitd died before it was ready: exit status 1" in done.stderr
    assert "flag provided but not defined" in done.stdout


def test_ctrl_c_ends_it(tools: Space, leftovers: Leftovers) -> None:
    matrix(tools, TESTS, "oci")
    before = leftovers(tools.cache)
    command = [*tools.command("shell"), "--disk_cache", str(tools.cache), "--at_failure", "test_hangs/worker=oci"]
    with subprocess.Popen([*command, "--", "true"], cwd=tools.root) as process:
        wait_for(lambda: bool(leftovers(tools.cache)["network namespaces"]))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 8
    assert leftovers(tools.cache) == before


def strace(space: Space, worker: str, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["--disk_cache", str(space.cache), f"test_fails/worker={worker}"]
    command = [*space.command("shell"), *options, *words]
    return subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("strace", path="/usr/bin") is None, reason="bk takes strace from the machine")
def test_a_daemon_under_strace(tools: Space, leftovers: Leftovers) -> None:
    """Also one without privileges, whose helpers are setuid, and one that enters another's user namespace."""
    helper, program = 'execve("/usr/bin/newuidmap"', 'execve("/opt/bk/bin/buildkitd"'
    step = 'execve("/bin/sh", ["/bin/sh", "-c", "echo traced"]'
    workers = {"oci": [program, step], "rootless": [helper], "containerd-rootless": [program]}
    matrix(tools, TESTS, "oci", "rootless", "containerd_rootless")
    before = leftovers(tools.cache)
    build = (
        "cd /tmp && echo 'FROM docker.io/library/busybox:latest' > Dockerfile && echo 'RUN echo traced' >> Dockerfile"
    )
    build += " && buildctl build --frontend=dockerfile.v0 --local context=. --local dockerfile=."
    for worker, calls in workers.items():
        command = build if worker == "oci" else "buildctl debug workers"
        done = strace(tools, worker, "--strace=buildkitd", "--", "sh", "-c", command)
        assert done.returncode == 0, done.stderr
        trace = tools.root / f"bk-out/targets/small/test_fails/worker={worker}/buildkitd.strace"
        assert f"bk: the system calls of buildkitd are in {trace}" in done.stderr
        lines = trace.read_text().splitlines()
        for call in calls:
            assert any(call in line and (" = 0 " in line or "unfinished" in line) for line in lines), call
    assert leftovers(tools.cache) == before


@pytest.mark.skipif(shutil.which("strace", path="/usr/bin") is None, reason="bk takes strace from the machine")
def test_an_extra_worker_at_a_failure(tools: Space) -> None:
    test = "def test_fails(sandbox):\n    sandbox.start_worker('oci', name='second')\n    assert False\n"
    matrix(tools, test, "rootless", more="extra_workers = [':oci'],")
    look = "ls /out; BUILDKIT_HOST=unix:///run/workers/second/bk/buildkitd.sock buildctl debug workers"
    cell = "test_fails/worker=rootless"
    done = shell(tools, "--strace=second.buildkitd", cell, "--", "sh", "-c", look)
    assert done.returncode == 0, done.stderr
    assert "PLATFORMS" in done.stdout
    assert "second.buildkitd.log" in done.stdout
    trace = tools.root / f"bk-out/targets/small/{cell}/second.buildkitd.strace"
    assert 'execve("/opt/bk/bin/buildkitd"' in trace.read_text()


@pytest.mark.skipif(shutil.which("strace", path="/usr/bin") is None, reason="bk takes strace from the machine")
def test_strace_of_what_is_not_there(tools: Space) -> None:
    matrix(tools, TESTS, "oci")
    unknown = strace(tools, "oci", "--strace=buildkit", "--", "true")
    assert unknown.returncode == 2
    assert "--strace=buildkit: test_fails/worker=oci has no such daemon" in unknown.stderr
    assert "did you mean 'buildkitd'?" in unknown.stderr
    passed = shell(tools, "--strace=buildkit", "test_passes/worker=oci", "--", "true")
    assert (passed.returncode, "has no such daemon" in passed.stderr) == (2, True), passed.stderr

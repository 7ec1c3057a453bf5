"""Several workers in one cell: what becomes of their daemons, logs and files when the cell ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import Space, matrix

Report = Callable[..., dict[str, Any]]

TESTS = """
import os, select, signal
from pathlib import Path

def build(sandbox, folder, *more):
    (folder / "Dockerfile").write_text("FROM docker.io/library/busybox:esgz\\nRUN echo hello > /hello.txt\\n")
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=local,dest={folder}/out", *more])
    assert (folder / "out/hello.txt").read_text() == "hello\\n"

def processes(name):
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [int(path.parent.name)] if path.read_text() == f"{name}\\n" else []
        except OSError:
            continue  # it has ended
    return found

def test_each(sandbox, tmp_path):
    for name in WORKERS:
        build(sandbox.start_worker(name), tmp_path)
    build(sandbox, tmp_path)

def test_dies(sandbox):
    first = processes("buildkitd")
    sandbox.start_worker("oci", name="second")
    (second,) = {*processes("buildkitd")} - {*first}
    ended = os.pidfd_open(second)
    os.kill(second, signal.SIGKILL)
    select.select([ended], [], [])

"""
HANGS = """
import time

def test_hangs(sandbox):
    sandbox.start_worker("oci", name="second")
    time.sleep(600)
"""
OLD_CLIENT = """
worker(
    name = "old_client",
    plugin = "oci",
    id = "old-client",
    tools = {"buildctl": "//targets/tools/clients:buildctl_v0.31.0"},
)
"""
CLIENTS = """
import subprocess

def test_clients(sandbox, tmp_path):
    old, older = sandbox.start_worker("old-client"), sandbox.start_worker("oci-buildkit-0.17")
    versions = {}
    for one in (sandbox, old, older):
        done = subprocess.run(["buildctl", "--version"], env=one.environment, capture_output=True, text=True)
        versions[one.prefix] = done.stdout.split()[2]
    assert (versions[""], versions["old-client."]) == ("v0.34.2", "v0.31.0")
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n")
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    for daemon, client in ((sandbox, old), (older, old), (old, sandbox), (older, sandbox)):
        out = tmp_path / f"{daemon.prefix}{client.prefix}out"
        words = ["build", "--frontend=dockerfile.v0", *local, f"--output=type=local,dest={out}"]
        daemon.run(words, client=client)
        assert (out / "hello.txt").read_text() == "hello\\n"
"""
CLIENT_OF_PROGRAM = """#!/bin/sh -eu
client=$BK_EXTRA_WORKER_OLD_CLIENT_TOOLS/buildctl
[ "$("$client" --version | { read -r _ _ release _; echo "$release"; })" = v0.31.0 ]
printf 'FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n' > "$TEST_TMPDIR/Dockerfile"
for host in "$BUILDKIT_HOST" "$BK_EXTRA_WORKER_OCI_BUILDKIT_0_17_HOST"; do
  "$client" --addr "$host" build --frontend=dockerfile.v0 --local=context="$TEST_TMPDIR" --local=dockerfile="$TEST_TMPDIR" \\
    --output=type=local,dest="$TEST_TMPDIR/out"
  read -r said < "$TEST_TMPDIR/out/hello.txt"
  [ "$said" = hello ]
  : > "$TEST_TMPDIR/out/hello.txt"
done
"""
EXTRA = "extra_workers = ['//targets:oci', '//targets:containerd_stargz', '//targets:dockerd', '//targets:containerd_rootless'],"


def declare(space: Space, name: str, tests: str, *workers: str, more: str) -> None:
    """Add a matrix of that name to the workspace."""
    matrix(space, tests, *workers, more=more)
    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace("small", name))
    (space.root / "t/test_small.py").rename(space.root / f"t/test_{name}.py")


def test_all_kinds_of_workers_next_to_each_other(tools: Space, leftovers: Leftovers, report: Report) -> None:
    workers = ["oci", "containerd+stargz", "dockerd-containerd", "containerd-rootless"]
    declare(tools, "hanging", HANGS, "oci", more=EXTRA + "timeout = 8,")
    inner = TESTS.replace("WORKERS", repr(["containerd+stargz", "rootless", "oci"]))
    of_jail = EXTRA.replace("containerd_rootless", "rootless") + "isolation = 'jail',"
    declare(tools, "jailed", inner, "rootless", more=of_jail)
    declare(tools, "usual", TESTS.replace("WORKERS", repr(workers)), "dockerd", "oci", more=EXTRA)
    before = leftovers(tools.cache)

    words = ("--test_filter=test_each/*", "--test_filter=test_*/worker=oci")
    done = tools.bk("test", "//targets:usual", "//targets:hanging", "//targets:jailed", *words)

    assert leftovers(tools.cache) == before
    assert done.returncode == 3, done.stdout + done.stderr
    cells = {cell["name"]: cell for cell in report(tools.root, "usual")["cells"]}
    each = [*report(tools.root, "jailed")["cells"], *cells.values()]
    passed = {cell["name"] for cell in each if cell["status"] == "passed"}
    assert passed == {f"test_each/worker={name}" for name in ("rootless", "oci", "dockerd-containerd")}, done.stdout
    died = cells["test_dies/worker=oci"]
    assert (died["class"], len(died["attempts"])) == ("infrastructure", 2), died
    assert "second.buildkitd ended during the test: killed by SIGKILL" in died["reason"]
    folder = tools.root / "bk-out/targets/usual/test_each/worker=oci"
    logs = {path.name for path in folder.glob("*.log")}
    assert {"buildkitd.log", "containerd+stargz.stargz.log", "dockerd-containerd.dockerd.log"} <= logs
    assert (
        "extra worker //targets:containerd_rootless starts as containerd-rootless" in (folder / "cell.log").read_text()
    )
    hung = tools.root / "bk-out/targets/hanging/test_hangs/worker=oci"
    for name in ("buildkitd", "second.buildkitd"):
        assert "\ngoroutine 1 " in (hung / f"{name}.stacks").read_text()


def test_the_sample_passes_and_is_cached(clone: Space) -> None:
    done = clone.bk("test", "//tests/matrix:extra_workers_matrix")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(8 cached, 0 not)" in clone.bk("test", "//tests/matrix:extra_workers_matrix").stdout


@pytest.mark.soak
def test_an_old_client_with_a_new_daemon_and_the_reverse(tools: Space) -> None:
    """The old client is a tool of a worker; its release is compiled for this test alone."""
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text() + OLD_CLIENT)
    matrix(
        tools, CLIENTS, "oci", more="extra_workers = [':old_client', '//targets:oci_buildkit_0_17'], tools = [':sh'],"
    )
    text = build.read_text().replace("test_matrix, worker", "host_binary, test_matrix, worker", 1)
    text = text.replace('"//t:test_small.py"', '"//t:test_small.py", "//t:client.sh"')
    build.write_text(f'{text}host_binary(name = "sh", binary = "/bin/sh")\n')
    tools.write("t/client.sh", CLIENT_OF_PROGRAM)
    done = tools.bk("test", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr

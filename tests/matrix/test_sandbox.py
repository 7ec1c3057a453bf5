"""The sandbox itself, on every worker: what a test is promised of it."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from bkrules.testing.sandbox import CommandFailed, ControlFailed, MirrorFailed, Sandbox

DOCKERFILE = "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello.txt\n"


def build(sandbox: Sandbox, folder: Path, dockerfile: str, *more: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *more])


def test_describes_its_backend(sandbox: Sandbox) -> None:
    assert sandbox.address.startswith("unix://")
    assert sandbox.rootless == ("rootless" in sandbox.worker)
    assert bool(sandbox.containerd_address) == sandbox.worker.startswith(("containerd", "dockerd"))
    assert bool(sandbox.docker_address) == sandbox.worker.startswith("dockerd")
    assert sandbox.backend.netns_detached == sandbox.worker.endswith("-detachnetns")
    assert sandbox.name.startswith(f"test_describes_its_backend/worker={sandbox.worker}")
    listed = sandbox.run("debug workers --verbose").stdout
    if sandbox.snapshotter:
        assert re.search(rf"worker\.snapshotter:\s+{sandbox.snapshotter}\n", listed)


def test_an_unknown_axis_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(KeyError, match="no axis 'flavour'; this matrix has: "):
        sandbox.value("flavour")


def test_an_image_that_the_mirror_does_not_have_is_named(sandbox: Sandbox) -> None:
    """By its tag, its repository or its digest, with the images that the mirror has; a short reference is none."""
    digest = f"docker.io/library/busybox@sha256:{'0' * 64}"
    for reference in ("docker.io/library/busybox:latst", "docker.io/library/busibox:latest"):
        with pytest.raises(MirrorFailed, match=f"has no {reference}; did you mean 'library/busybox:latest'"):
            sandbox.manifest(reference)
    with pytest.raises(
        MirrorFailed, match=f"has no {digest}; its images, without their registries: .*library/busybox:latest"
    ):
        sandbox.manifest(digest)
    with pytest.raises(ValueError, match="'busybox:latest' is not a full reference"):
        sandbox.manifest("busybox:latest")
    assert sandbox.manifest("docker.io/library/busybox:latest")["layers"]


def test_a_mirror_without_faults_has_none_to_begin(sandbox: Sandbox) -> None:
    for switch in (sandbox.begin_faults, sandbox.end_faults):
        with pytest.raises(MirrorFailed, match="no axis value of this cell has a 'mirror'"):
            switch()


def test_a_failed_command_raises_with_its_output(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="applet not found"):
        build(sandbox, tmp_path, "FROM docker.io/library/busybox:latest\nRUN box no-such-applet\n")


def test_logs_hold_what_each_daemon_said(sandbox: Sandbox, tmp_path: Path) -> None:
    build(sandbox, tmp_path, DOCKERFILE)
    assert "library/busybox" in sandbox.logs["dockerd" if sandbox.docker_address else "buildkitd"]
    assert ("containerd" in sandbox.logs) == bool(sandbox.containerd_address)


@pytest.mark.requires("direct_push")
def test_a_new_registry_takes_a_push(sandbox: Sandbox, tmp_path: Path) -> None:
    first, second = sandbox.new_registry(), sandbox.new_registry()
    assert first != second
    name = f"{first}/sample:1"
    build(sandbox, tmp_path, DOCKERFILE, "--output", f"type=image,name={name},push=true,registry.insecure=true")
    assert requests.get(f"http://{first}/v2/sample/tags/list", timeout=10).json()["tags"] == ["1"]
    assert requests.get(f"http://{second}/v2/_catalog", timeout=10).json()["repositories"] == []


def test_a_daemon_is_restarted_and_the_cache_is_still_there(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each daemon alone; clients that have lost a connection to it open another one."""
    first = f"{DOCKERFILE}RUN cat /proc/sys/kernel/random/uuid > /unique\n"
    last = "FROM scratch\nCOPY --from=0 /unique /after /\n"
    found = set()
    for daemon in ("nothing", *sandbox.daemons):
        log = sandbox.logs.get(daemon, "")
        if daemon != "nothing":
            sandbox.restart(daemon)
        if (sandbox.worker, daemon) == ("containerd-rootless", "containerd"):
            sandbox.restart("buildkitd")  # it lives in namespaces that ended with containerd
        out = tmp_path / daemon
        build(sandbox, tmp_path, f"{first}RUN echo {daemon} > /after\n{last}", f"--output=type=local,dest={out}")
        found.add((out / "unique").read_text())
        assert (out / "after").read_text() == f"{daemon}\n"
        assert sandbox.logs.get(daemon, "").startswith(log)
    assert len(found) == 1


def test_a_daemon_is_stopped_and_started(sandbox: Sandbox, tmp_path: Path) -> None:
    """That it has ended is no failure of the cell, since the test asked for it."""
    last = sandbox.daemons[-1]
    assert last in ("buildkitd", "dockerd")
    sandbox.stop(last)
    with pytest.raises(CommandFailed):
        sandbox.run("debug workers")
    with pytest.raises(ControlFailed, match=f"'{last}' is stopped already"):
        sandbox.stop(last)
    sandbox.start(last)
    build(sandbox, tmp_path, DOCKERFILE)
    with pytest.raises(ControlFailed, match=f"'{last}' was not stopped; stopped are: nothing"):
        sandbox.start(last)
    with pytest.raises(ControlFailed, match=f"'other' is not a daemon of this cell; running are: .*{last}"):
        sandbox.restart("other")
    said = Path("/out/cell.log").read_text()
    assert len(re.findall(f"{last} started as process", said)) == 2
    assert re.search(rf"{last} exit status [01] [\d.]+ s after SIGTERM", said)
    sandbox.stop(last)


def test_the_mirror_is_read_only_and_counts(sandbox: Sandbox, tmp_path: Path) -> None:
    build(sandbox, tmp_path, DOCKERFILE)
    seen = sandbox.mirror_requests()
    assert any(one.path == "/v2/library/busybox/manifests/latest" and one.status == 200 for one in seen)
    refused = requests.post(f"http://{sandbox.mirror}/v2/library/busybox/blobs/uploads/", timeout=10)
    assert refused.status_code == 405


def test_nothing_else_can_be_reached(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither by the test, nor by the daemon; 192.0.2.1 is a documentation address."""
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 80), timeout=5)
    with pytest.raises(OSError, match=r"resolution|not known"):
        socket.getaddrinfo("example.com", 80)
    with pytest.raises(CommandFailed, match=r"not found|unreachable|no such host|misbehaving|refused"):
        build(sandbox, tmp_path, "FROM docker.io/library/not-in-the-mirror:1\n")
    assert socket.gethostname() == "cell"
    assert Path("/proc/1/comm").read_text() != "systemd\n"
    assert sorted(os.listdir("/sys/class/net")) == (["docker0", "lo"] if sandbox.docker_address else ["lo"])


def test_only_what_was_declared_is_there(sandbox: Sandbox) -> None:
    own = {name for name in os.environ if not name.startswith("PYTEST_")}
    assert own == {"GOMAXPROCS", "GORACE", "HOME", "LANG", "PATH", "TEST_UNDECLARED_OUTPUTS_DIR", "TMPDIR", "TZ"}
    commands = {path.name for path in Path("/usr/bin").iterdir() if not path.name.startswith("python")}
    expected = {"newuidmap", "newgidmap"} if sandbox.rootless else set()
    if sandbox.backend.netns_detached:
        expected |= {"mount", "nsenter", "unshare", *re.findall("slirp4netns", sandbox.worker)}
    expected |= {"fuse-overlayfs"} if sandbox.snapshotter == "fuse-overlayfs" else set()
    assert commands == expected
    for folder in ("/opt/bk/bin", str(Path(subprocess.__file__).parent)):
        with pytest.raises(OSError, match="Read-only"):
            Path(folder, "new").write_text("")

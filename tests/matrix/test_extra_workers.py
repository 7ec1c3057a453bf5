"""Several workers in one cell, on every worker as the first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from processes import named

from bkrules.testing.control import ControlFailed
from bkrules.testing.released import holdings
from bkrules.testing.sandbox import Sandbox

RAN = re.compile(r"^#\d+ [\d.]+ it ran$", re.MULTILINE)
BUSYBOX = "docker.io/library/busybox:latest"


def build(sandbox: Sandbox, folder: Path, *more: str, client: Sandbox | None = None) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo it ran; echo of this step > /made.txt\n")
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    words = ["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *more]
    return sandbox.run(words, client=client).stderr


def release(sandbox: Sandbox, client: Sandbox | None = None) -> str:
    found = re.search(r"BuildKit:\s+\S+ v(\d+\.\d+)", sandbox.run("debug info", client=client).stdout)
    assert found is not None
    return found[1]


def test_a_cache_is_shared_between_two_daemons(sandbox: Sandbox, tmp_path: Path) -> None:
    other = sandbox.start_worker("//targets:containerd")
    registry = sandbox.new_registry()
    cache = f"type=registry,ref={registry}/cache:one,registry.insecure=true"
    assert RAN.search(build(sandbox, tmp_path / "context", f"--export-cache={cache},mode=max"))

    said = build(other, tmp_path / "context", f"--import-cache={cache}", f"--output=type=local,dest={tmp_path}/out")

    assert not RAN.search(said)
    assert (tmp_path / "out/made.txt").read_text() == "of this step\n"
    assert other.worker == "containerd"
    assert other.address != sandbox.address
    assert other.containerd_address not in ("", sandbox.containerd_address)


def test_two_of_one_plugin_share_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    first, second = sandbox.start_worker("oci"), sandbox.start_worker("oci", name="second")
    everyone = (sandbox, first, second)
    assert len({one.address for one in everyone}) == len({one.state for one in everyone}) == 3
    build(first, tmp_path / "context")
    assert BUSYBOX in first.run("du --verbose").stdout
    assert (bool(holdings(first)["snapshots"]), bool(holdings(second)["snapshots"])) == (True, False)
    for other in (sandbox, second):
        assert "Total:\t\t0B" in other.run("du").stdout.replace("\t\t\t", "\t\t")
        assert RAN.search(build(other, tmp_path / "context"))
    for one in everyone:
        one.check_released()


def test_an_old_daemon_with_a_new_client(sandbox: Sandbox, tmp_path: Path) -> None:
    old = sandbox.start_worker("//targets:oci_buildkit_0_17")
    assert (release(sandbox), release(old), release(old, client=sandbox)) == ("0.34", "0.17", "0.17")
    build(old, tmp_path / "context", f"--output=type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/made.txt").read_text() == "of this step\n"
    assert old.environment["PATH"].startswith(f"{old.tools}:/opt/bk/bin:")
    assert old.cmd("du", client=sandbox).environment["PATH"] == sandbox.environment["PATH"]
    versions = [subprocess.run([one.tools / "buildkitd", "--version"], capture_output=True) for one in (sandbox, old)]
    assert [b" v0.17" in done.stdout for done in versions] == [False, True]


def test_daemons_of_a_worker_are_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    other = sandbox.start_worker("rootless", name="without-privileges")
    assert other.rootless
    assert other.daemons == ("buildkitd",)
    assert "main.main()" in other.debug("/debug/pprof/goroutine?debug=2")
    build(other, tmp_path / "context")
    other.restart("buildkitd", signal=signal.SIGKILL)
    assert not RAN.search(build(other, tmp_path / "context")), "its cache is gone"
    assert "running server on" in other.logs["buildkitd"]
    assert other.logs["buildkitd"] == sandbox.logs["without-privileges.buildkitd"]
    assert sandbox.logs["buildkitd"] != other.logs["buildkitd"]
    own = set(named("buildkitd"))
    other.stop("buildkitd")
    assert set(named("buildkitd")) < own
    sandbox.run("debug workers")
    (tmp_path / "left").write_text("in the cell")
    assert Path("/out/without-privileges.buildkitd.log").exists()
    with pytest.raises(ControlFailed, match=r"without-privileges\.buildkitd' is stopped already"):
        other.stop("buildkitd")


def test_a_worker_that_cannot_be_started(sandbox: Sandbox) -> None:
    with pytest.raises(
        ControlFailed, match=r"no extra worker is called 'containerd\+star'; .* has: oci \(//targets:oci\), "
    ):
        sandbox.start_worker("containerd+star")
    with pytest.raises(ControlFailed, match=r"'\.\./x y' cannot be the name of a worker"):
        sandbox.start_worker("oci", name="../x y")
    with pytest.raises(ControlFailed, match=r"broken\.buildkitd died before it was ready: exit status 1"):
        sandbox.start_worker("broken")
    assert "flag provided but not defined" in Path("/out/broken.buildkitd.log").read_text()
    with pytest.raises(ControlFailed, match="a worker called 'broken' was started already"):
        sandbox.start_worker("//tests/matrix:broken")
    assert os.readlink("/proc/1/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    sandbox.run("debug workers")


def test_the_files_of_the_first_worker_are_not_touched(sandbox: Sandbox) -> None:
    before = {path: path.read_bytes() for path in Path("/etc").rglob("*") if path.is_file()}
    for number in range(2):
        sandbox.start_worker("rootless", name=f"rootless{number}")
    assert {path: path.read_bytes() for path in Path("/etc").rglob("*") if path.is_file()} == before

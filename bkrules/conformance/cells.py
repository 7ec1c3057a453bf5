"""The requirements on a worker in a cell. Each test here runs with the worker in a fresh sandbox, and on a shared worker."""

import os
import tarfile
from pathlib import Path

import pytest

from bkrules.testing.sandbox import CommandFailed, Sandbox


def build(sandbox: Sandbox, folder: Path, dockerfile: str, *more: str) -> str:
    """Build a Dockerfile. Return the output of buildctl."""
    (folder / "Dockerfile").write_text(dockerfile)
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    done = sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *more])
    return done.stdout + done.stderr


def test_boots_as_it_says(sandbox: Sandbox) -> None:
    """Check the backend's fields against the real daemon."""
    listed = sandbox.run("debug workers --verbose").stdout
    shown = dict(line.split(":", 1) for line in map(str.strip, listed.splitlines()) if ": " in line or "\t" in line)
    snapshotters = {value.strip() for name, value in shown.items() if name.endswith("worker.snapshotter")}
    assert snapshotters == ({sandbox.snapshotter} if sandbox.snapshotter else set())
    if sandbox.containerd_address:
        assert Path(sandbox.containerd_address).is_socket()
    name = "dockerd\n" if sandbox.docker_address else "buildkitd\n"
    (daemon,) = (path.parent for path in Path("/proc").glob("[0-9]*/comm") if path.read_text() == name)
    in_another = os.readlink(daemon / "ns/user") != os.readlink("/proc/self/ns/user")
    assert in_another == sandbox.rootless, "it must report whether buildkitd is in its own user namespace"


def test_hello(sandbox: Sandbox, tmp_path: Path) -> None:
    """Check that a step runs, its result is exported, the image comes from the mirror, and the daemons' logs are kept."""
    image = sandbox.value("image")
    archive = tmp_path / "hello.tar"
    build(sandbox, tmp_path, f"FROM {image}\nRUN echo hello > /hello.txt\n", "--output", f"type=tar,dest={archive}")
    with tarfile.open(archive) as tar:
        member = tar.extractfile("hello.txt")
        assert member is not None
        assert member.read() == b"hello\n"
    assert any("/manifests/" in one.path and one.status == 200 for one in sandbox.mirror_requests())
    assert any(text.strip() for text in sandbox.logs.values())


def test_a_step_that_was_built_is_cached(sandbox: Sandbox, tmp_path: Path) -> None:
    dockerfile = f"FROM {sandbox.value('image')}\nRUN echo once > /once.txt\n"
    assert "CACHED" not in build(sandbox, tmp_path, dockerfile)
    assert "CACHED" in build(sandbox, tmp_path, dockerfile)


def test_a_step_that_fails_fails_the_build(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="exit code: 3"):
        build(sandbox, tmp_path, f"FROM {sandbox.value('image')}\nRUN exit 3\n")


def test_what_the_mirror_lacks_is_not_found(sandbox: Sandbox, tmp_path: Path) -> None:
    """Check that bk's mirror answers for each registry of its images: the configuration must name it for all of them."""
    host = sandbox.value("image").partition("/")[0]
    with pytest.raises(CommandFailed):
        build(sandbox, tmp_path, f"FROM {host}/library/not-in-the-mirror:1\n")
    assert any("not-in-the-mirror" in one.path and one.status == 404 for one in sandbox.mirror_requests())

"""The requirements on a worker in a cell. Each test here runs with the worker in a fresh sandbox, and on a shared worker."""

import os
import tarfile
from pathlib import Path

import pytest

from bkrules.plugin import Daemons
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


PROBES: dict[str, tuple[str, ...]] = {
    "cache_backend_local": ("--export-cache=type=local,dest={out}",),
    "cache_export": ("--export-cache=type=local,dest={out}",),
    "frontend_outline": ("--opt=requestid=frontend.outline",),
    "frontend_targets": ("--opt=requestid=frontend.targets",),
    "image_exporter": ("--output=type=image,name=example.test/image",),
    "multi_cache_export": ("--export-cache=type=local,dest={out}", "--export-cache=type=local,dest={out}.more"),
    "multi_platform": ("--opt=platform=linux/amd64,linux/arm64", "--output=type=oci,dest={out}"),
    "oci_exporter": ("--output=type=oci,dest={out}",),
    "provenance": ("--opt=attest:provenance=mode=max", "--output=type=oci,dest={out}"),
}
"""The features that one build without a step can try, and the flags of buildctl that use each."""


def test_features_are_as_it_says(sandbox: Sandbox, tmp_path: Path) -> None:
    """Features that the worker names work, and the others do not."""
    wrong = []
    is_shared = sandbox.value("isolation") == "worker"
    for feature, flags in PROBES.items():
        if is_shared and feature == "image_exporter":
            continue  # the image stays, which would taint the worker
        words = [flag.format(out=tmp_path / feature) for flag in flags]
        try:
            build(sandbox, tmp_path, "FROM scratch\nCOPY Dockerfile /x\n", *words)
        except CommandFailed as error:
            if sandbox.supports(feature):
                wrong.append(f"features() has {feature!r}, which fails: {str(error).strip().splitlines()[-1]}")
        else:
            if not sandbox.supports(feature):
                wrong.append(f"features() lacks {feature!r}, which works")
    assert not wrong, "; ".join(wrong)


def test_lets_go_of_what_it_held(sandbox: Sandbox, tmp_path: Path) -> None:
    """Find nothing of a build after a prune, and no mount of `start` outside of the daemons' folders."""
    build(sandbox, tmp_path, f"FROM {sandbox.value('image')}\nRUN echo held > /held.txt\n")
    if sandbox.value("isolation") != "worker":  # a shared one may hold what other tests have left
        sandbox.check_released()
    assert not (left := strange_mounts()), f"it left mounts outside of Daemons.state and Daemons.run: {', '.join(left)}"


def strange_mounts() -> list[str]:
    """Return where a worker has mounted something, in the cell's own mount namespace, that is not below its folders."""
    found = []
    for line in Path("/proc/1/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        (root, point), (kind, source) = before.split()[3:5], after.split()[:2]
        is_ours = kind in ("proc", "sysfs", "devpts", "cgroup2") or (source in ("bk", "bk-out") and kind == "overlay")
        is_ours = is_ours or (source in ("bk", "bk-out") and root == "/")
        if not is_ours and not point.startswith((f"{Daemons.state}/", f"{Daemons.run}/")):
            found.append(point)
    return sorted(found)

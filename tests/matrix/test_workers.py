"""That a worker is what its name says."""

import re
import subprocess
from pathlib import Path

from processes import named

from bkrules.testing.sandbox import Sandbox


def test_its_daemons_are_of_the_release_in_its_name(sandbox: Sandbox) -> None:
    """A worker with no release in its name has one that the other workers have not."""
    found = {"buildkit": re.search(r"BuildKit:\s+\S+ v([\d.]+)", sandbox.run("debug info").stdout)}
    if sandbox.containerd_address:
        told = subprocess.run(
            ["ctr", "--address", sandbox.containerd_address, "version"], capture_output=True, text=True, check=True
        ).stdout
        client, server = re.findall(r"Version:\s+v([\d.]+)", told)
        assert client == server
        found["containerd"] = re.search(r"Server:\s+Version:\s+v([\d.]+)", told)
    for daemon, release in (("buildkit", "0.17"), ("containerd", "1.7")):
        if match := found.get(daemon):
            named = f"{daemon}-{release}" in sandbox.worker
            assert match[1].startswith(f"{release}.") == named, (daemon, match[1])
    assert found["buildkit"]


def test_its_snapshotter_makes_the_root_of_a_step(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM docker.io/library/busybox:latest AS step\nRUN cat /proc/self/mountinfo > /mounts\n"
        "FROM scratch\nCOPY --from=step /mounts /\n"
    )
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=local,dest={tmp_path}/out"])

    root, options = root_in((tmp_path / "out/mounts").read_text())
    plain, _ = root_in(Path("/proc/self/mountinfo").read_text())
    assert plain in ("tmpfs", "ext4"), "the root of the cell is in memory"
    kinds = {"": "overlay", "overlayfs": "overlay", "native": plain, "fuse-overlayfs": "fuse.fuse-overlayfs"}
    assert root == kinds[sandbox.snapshotter]
    assert not {"nosuid", "nodev"} & set(options.split(",")), "files of an image may be setuid, and devices"


def root_in(mounts: str) -> tuple[str, str]:
    """Return the type and the options of the root in a list of mounts."""
    words = next(line.split() for line in mounts.splitlines() if line.split()[4] == "/")
    return words[words.index("-") + 1], words[5]


def test_a_rootless_daemon_has_no_privileges(sandbox: Sandbox) -> None:
    """Seen from the cell: another user, in another user namespace, as are all that it starts."""
    own = Path("/proc/self/ns/user").readlink()
    names = {"dockerd"} if sandbox.docker_address else {"buildkitd"}
    names |= {"containerd"} if sandbox.containerd_address else set()
    for name in names:
        process = named(name)[-1]
        assert ((process / "ns/user").readlink() != own) == sandbox.rootless
        assert (process.stat().st_uid != 0) == sandbox.rootless

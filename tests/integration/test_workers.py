"""Workers that need commands of this machine, where it has them; and workers that keep their daemons between tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

Report = Callable[[Path, str], dict[str, Any]]
NEEDS = {
    "oci+fuse-overlayfs": "fuse-overlayfs",
    "containerd+fuse-overlayfs": "fuse-overlayfs",
    "rootless+fuse-overlayfs": "fuse-overlayfs",
    "rootless-gvisor-tap-vsock-detachnetns": "nsenter",
    "rootless-slirp4netns-detachnetns": "slirp4netns",
}


@pytest.mark.parametrize("name", ["fuse_overlayfs_matrix", "detached_matrix", "slirp4netns_matrix"])
def test_all_that_can_run_here_passes(name: str, clone: Space, report: Report) -> None:
    done = clone.bk("test", f"//targets:{name}", "--nocache_test_results")

    cells = report(clone.root, name)["cells"]
    by_worker = {
        worker: [cell for cell in cells if cell["worker"] == worker] for worker in {c["worker"] for c in cells}
    }
    for worker, own in by_worker.items():
        there = shutil.which(NEEDS[worker]) is not None
        assert len(own) == len(cells) / len(by_worker) > 10
        assert {cell["status"] for cell in own} == {"passed" if there else "skipped"}, done.stdout
        assert there or all(f"no {NEEDS[worker]}" in cell["reason"] for cell in own)
        tried = {(who, what) for cell in own for who, what in (each.values() for each in cell["egress"])}
        if there and "detachnetns" in worker:  # so the detached network ended in the cell's
            forwarder = "slirp4netns" if "slirp4netns" in worker else "rootlesskit"
            assert (forwarder, "tcp 192.0.2.1:80") in tried
    assert done.returncode == (0 if all(shutil.which(NEEDS[worker]) for worker in by_worker) else 36)


def test_a_rootless_containerd_can_be_shared(tools: Space, report: Report) -> None:
    """Its state is asked by ctr, from outside of its user namespace: what a test left in it taints the worker."""
    test = (
        "import subprocess\n"
        "def ctr(sandbox, *words):\n"
        "    command = ['ctr', '--address', sandbox.containerd_address, '--namespace', 'buildkit', *words]\n"
        "    subprocess.run(command, check=True)\n"
        "def test_clean(sandbox): sandbox.run('debug workers')\n"
        "def test_lease(sandbox): ctr(sandbox, 'leases', 'create', '--id', 'left', '--expires', '1h')\n"
    )
    matrix(tools, test, "containerd_rootless", more='isolation = "worker",')

    done = tools.bk("test", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    tainted = {cell["name"].partition("/")[0]: cell["tainted"] for cell in report(tools.root, "small")["cells"]}
    assert tainted["test_clean"] == []
    assert any("leases" in one for one in tainted["test_lease"])

from __future__ import annotations

import pytest
from bk_worker_containerd import CONFIGURATION, ContainerdWorker, configuration

from bkrules.plugin import Mirror, SettingsError
from bkrules.plugin.host import probe


def test_containerd_keeps_to_its_cell() -> None:
    document = configuration()

    assert document["root"].startswith("/var/lib/bk/")
    assert document["grpc"]["address"].startswith("/run/bk/")
    assert "io.containerd.grpc.v1.cri" in document["disabled_plugins"]


def test_the_introspection_service_stays() -> None:
    """Without it neither ctr nor BuildKit can speak to containerd."""
    assert not any("introspection" in name for name in configuration()["disabled_plugins"])


def test_both_daemons_are_configured() -> None:
    assert set(ContainerdWorker().configuration(Mirror("127.0.0.1:5000", ()))) == {"buildkitd.toml", CONFIGURATION}


def test_ids() -> None:
    assert ContainerdWorker().id() == "containerd"
    assert ContainerdWorker(snapshotter="native").id() == "containerd+native"
    assert ContainerdWorker(snapshotter="fuse-overlayfs").id() == "containerd+fuse-overlayfs"
    assert ContainerdWorker(snapshotter="native", network="cni").id() == "containerd+native+cni"


def test_a_snapshotter_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="one of overlayfs, native, fuse-overlayfs") as caught:
        ContainerdWorker.from_settings({"snapshotter": "zfs"})

    assert caught.value.name == "snapshotter"


def test_a_network_for_each_step() -> None:
    worker = ContainerdWorker(network="cni")

    kinds = worker.configuration(Mirror("127.0.0.1:5000", ()))["buildkitd.toml"]["worker"]

    assert kinds["containerd"]["networkMode"] == "cni"
    assert "networkMode" not in kinds["oci"]
    assert "buildkit-cni-bridge" in worker.tools()
    assert "cni_network" in worker.features() - ContainerdWorker().features()
    with pytest.raises(SettingsError, match="one of host, cni"):
        ContainerdWorker.from_settings({"network": "none"})


def test_every_release_reads_the_configuration() -> None:
    """Those before 2.0 know version 2 of the format at most."""
    assert configuration()["version"] == 2


def test_fuse_overlayfs_is_a_daemon_that_containerd_knows() -> None:
    worker = ContainerdWorker(snapshotter="fuse-overlayfs")

    document = worker.configuration(Mirror("127.0.0.1:5000", ()))[CONFIGURATION]

    assert document["proxy_plugins"] == {
        "fuse-overlayfs": {"type": "snapshot", "address": "/run/bk/fuse-overlayfs.sock"}
    }
    assert {"containerd-fuse-overlayfs-grpc", "mount.fuse3"} <= set(worker.tools())
    assert worker.host_tools() == ("fuse-overlayfs",)
    assert [lack.what for lack in worker.preflight(probe("/nowhere/"))] == ["no /dev/fuse"]
    assert "proxy_plugins" not in ContainerdWorker().configuration(Mirror("127.0.0.1:5000", ()))[CONFIGURATION]
